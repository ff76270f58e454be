"""A small density bundle, made in milliseconds: the bits of a pixel are its distance from grey."""

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from bundle import Calibration, CalibrationSpec, ImageInput, LikelihoodSpec, ScoreOutput, save_calibrations, seal_bundle

SIZE = 8
"""The height and width of the images."""


def make_tiny_density_bundle(directory: Path, *, name: str = "greyness", n_calibration: int = 200) -> Path:
    """Write the bundle `directory`/`name`/1, which counts bits per colour channel, and return its folder."""
    folder = directory / name / "1"
    folder.mkdir(parents=True)
    model = _graph()
    onnx.save(model, folder / "model.onnx")
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    images = np.random.default_rng(0).integers(96, 160, (n_calibration, SIZE, SIZE, 3), dtype=np.uint8)
    (values,) = session.run(["bpp"], {"images": images})
    save_calibrations(folder / "calibration.npz", {"bpp": Calibration.from_scores(values.astype(np.float64))})
    seal_bundle(
        folder,
        {
            "name": name,
            "version": "1",
            "description": "A density for tests.",
            "modality": "image",
            "task": "density",
            "input": ImageInput(height=SIZE, width=SIZE, channels=3, mean=(0.5,) * 3, std=(0.25,) * 3),
            "labels": [],
            "scores": [ScoreOutput(name="bpp", output="bpp")],
            "default_score": "bpp",
            "likelihood": LikelihoodSpec(per="channel", parts="bits"),
            "calibration": CalibrationSpec(file="calibration.npz", n=n_calibration, source="random greys", alpha=0.05),
            "created": datetime(2026, 1, 1, tzinfo=UTC),
        },
    )
    return folder


def _graph() -> onnx.ModelProto:
    """`images` uint8 `[N, 8, 8, 3]` to `bits` `[N, 8, 8]`, the sum over channels of |x - 128| / 16, and `bpp` `[N]`."""
    constants = {
        "grey": np.array(128, dtype=np.float32),
        "scale": np.array(16, dtype=np.float32),
        "channels": np.array(3, dtype=np.float32),
        "channel_axis": np.array([3], dtype=np.int64),
        "pixel_axes": np.array([1, 2], dtype=np.int64),
    }
    nodes = [
        helper.make_node("Cast", ["images"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Sub", ["pixels", "grey"], ["difference"]),
        helper.make_node("Abs", ["difference"], ["distance"]),
        helper.make_node("Div", ["distance", "scale"], ["of_channels"]),
        helper.make_node("ReduceSum", ["of_channels", "channel_axis"], ["bits"], keepdims=0),
        helper.make_node("ReduceMean", ["bits", "pixel_axes"], ["per_pixel"], keepdims=0),
        helper.make_node("Div", ["per_pixel", "channels"], ["bpp"]),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny-density",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", SIZE, SIZE, 3])],
        [
            helper.make_tensor_value_info("bpp", TensorProto.FLOAT, ["N"]),
            helper.make_tensor_value_info("bits", TensorProto.FLOAT, ["N", SIZE, SIZE]),
        ],
        [numpy_helper.from_array(value, key) for key, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return model
