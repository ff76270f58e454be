"""Copies of a bundle whose graph differs from its manifest."""

import shutil
from collections.abc import Callable
from pathlib import Path

import onnx

from bundle import Bundle, load_bundle

Edit = Callable[[onnx.ModelProto], object]


def with_edited_graph(bundle: Path, folder: Path, edit: Edit) -> Bundle:
    """Copy `bundle` below `folder`, edit the graph of the copy, and load it without verification."""
    copy = Path(shutil.copytree(bundle, folder / bundle.parent.name / bundle.name))
    model = onnx.load(copy / "model.onnx")
    edit(model)
    onnx.save(model, copy / "model.onnx")
    return load_bundle(copy, verify=False)
