"""An engine failure on one input costs that row only; a failure on every input of a batch ends the run."""

import json
from pathlib import Path

import numpy as np
import onnx
import pyarrow as pa
import pytest
from onnx import helper, numpy_helper

from bundle import MANIFEST_NAME, sha256_file
from tests.service.support.offline_runs import parquet, rows, score
from tests.service.support.pictures import picture
from tests.support.tiny_bundle import make_tiny_bundle

pytestmark = pytest.mark.usefixtures("restored_logging")


@pytest.fixture
def broken_for_white(tmp_path: Path) -> Path:
    """The tiny bundle with a graph that fails on a batch with an image whose darkest pixel is brighter than 200."""
    folder = make_tiny_bundle(tmp_path / "models")
    model = onnx.load(folder / "model.onnx")
    graph = model.graph
    logits = next(node for node in graph.node if "logits" in node.output)
    logits.output[0] = "clean_logits"
    graph.initializer.extend(
        [
            numpy_helper.from_array(np.zeros(201, np.float32), "table"),
            numpy_helper.from_array(np.array([1, 2, 3], np.int64), "all_axes"),
            numpy_helper.from_array(np.array([1], np.int64), "last"),
        ]
    )
    position = list(graph.node).index(logits) + 1
    for node in reversed(
        [
            helper.make_node("ReduceMin", ["pixels", "all_axes"], ["darkest"], keepdims=0),
            helper.make_node("Cast", ["darkest"], ["index"], to=onnx.TensorProto.INT64),
            helper.make_node("Gather", ["table", "index"], ["nothing"]),
            helper.make_node("Unsqueeze", ["nothing", "last"], ["column"]),
            helper.make_node("Add", ["clean_logits", "column"], ["logits"]),
        ]
    ):
        graph.node.insert(position, node)
    onnx.save(model, folder / "model.onnx")
    manifest = json.loads((folder / MANIFEST_NAME).read_text())
    manifest["files"]["model.onnx"] = sha256_file(folder / "model.onnx")
    (folder / MANIFEST_NAME).write_text(json.dumps(manifest))
    return folder


def test_an_engine_failure_on_one_input_leaves_the_others_of_its_batch(broken_for_white: Path, tmp_path: Path) -> None:
    files = pa.array([picture("red"), picture("white"), picture("blue")])
    assert score(parquet(tmp_path / "x.parquet", image=files), tmp_path / "out", model=broken_for_white) == 0
    written = rows(tmp_path / "out")
    assert [row["error"] for row in written] == [None, "inference-failed", None]
    assert [row["label"] for row in written] == ["red", None, "blue"]


def test_an_engine_that_fails_on_a_whole_batch_ends_the_run_without_rows_that_blame_the_inputs(
    broken_for_white: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = pa.array([picture("red")] * 8 + [picture("white")] * 8)
    source = parquet(tmp_path / "x.parquet", image=files)
    assert score(source, tmp_path / "out", "--part-size", "8", model=broken_for_white) == 1
    assert "fails on every input of a batch" in capsys.readouterr().err
    assert [row["label"] for row in rows(tmp_path / "out")] == ["red"] * 8
