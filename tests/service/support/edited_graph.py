"""Copies of a bundle whose graph differs from its manifest."""

import shutil
from collections.abc import Callable
from pathlib import Path

import onnx

from bundle import Bundle, load_bundle, seal_bundle

Edit = Callable[[onnx.ModelProto], object]


def with_edited_graph(bundle: Path, folder: Path, edit: Edit) -> Bundle:
    """Copy `bundle` below `folder`, edit the graph of the copy, and load it without verification."""
    copy = Path(shutil.copytree(bundle, folder / bundle.parent.name / bundle.name))
    model = onnx.load(copy / "model.onnx")
    edit(model)
    onnx.save(model, copy / "model.onnx")
    return load_bundle(copy, verify=False)


def edit_graph(bundle: Path, edit: Edit) -> None:
    """Edit the graph of `bundle`, and write the manifest anew so that the bundle can be served."""
    model = onnx.load(bundle / "model.onnx")
    edit(model)
    onnx.save(model, bundle / "model.onnx")
    manifest = load_bundle(bundle, verify=False).manifest
    seal_bundle(bundle, manifest.model_dump(exclude={"files", "schema_version"}))
