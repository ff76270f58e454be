"""The model that every peer serves: scores the bytes of a file with the maximum softmax probability.

It runs in each peer's own environment, which has onnxruntime, numpy, Pillow and tokenizers but not this project's
packages. Its settings are environment variables, because some frameworks start worker processes without arguments.
"""

import io
import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image
from tokenizers import Tokenizer

BUNDLE = Path(os.environ["BENCHMARK_BUNDLE"])
PORT = int(os.environ["BENCHMARK_PORT"])
WORKERS = int(os.environ["BENCHMARK_WORKERS"])
"""The number of worker processes, each with a session."""
THREADS = int(os.environ["BENCHMARK_THREADS"])
"""The number of threads of each session. Workers times threads is the number of cores."""
MAX_BATCH = int(os.environ["BENCHMARK_BATCH"])
"""The largest batch."""


class Scorer:
    """A bundle's graph in ONNX Runtime, with the preparation of its inputs."""

    def __init__(self) -> None:
        manifest = json.loads((BUNDLE / "manifest.json").read_text(encoding="utf-8"))
        self._input = manifest["input"]
        self._tokenizer = None
        if self._input["kind"] == "text":
            self._tokenizer = Tokenizer.from_file(str(BUNDLE / self._input["tokenizer"]))
            self._tokenizer.no_padding()
            self._tokenizer.enable_truncation(self._input["max_tokens"])
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = THREADS
        options.inter_op_num_threads = 1
        providers = ["CPUExecutionProvider"]
        if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
            onnxruntime.preload_dlls()
            providers.insert(0, "CUDAExecutionProvider")
        self._session = onnxruntime.InferenceSession(BUNDLE / manifest["model"], options, providers=providers)
        # A session's first run is slow: no measured request should include it.
        self.msp([self.prepare(_blank_file(self._input))])

    def prepare(self, body: bytes) -> np.ndarray:
        """The pixels `[H, W, C]` uint8 of an image, or the token ids `[L]` int64 of a text."""
        if self._tokenizer is not None:
            (encoding,) = self._tokenizer.encode_batch_fast([body.decode()])
            return np.asarray(encoding.ids, np.int64)
        size = (self._input["width"], self._input["height"])
        image = Image.open(io.BytesIO(body)).convert("L" if self._input["channels"] == 1 else "RGB")
        if image.size != size:
            image = image.resize(size, Image.Resampling[self._input["resize"].upper()])
        return np.asarray(image, np.uint8).reshape(size[1], size[0], self._input["channels"])

    def msp(self, items: Sequence[np.ndarray]) -> list[float]:
        """Maximum softmax probabilities of a batch of prepared inputs."""
        if self._tokenizer is None:
            feed = {"images": np.stack(items)}
        else:
            lengths = np.asarray([len(item) for item in items], np.int64)
            tokens = np.zeros((len(items), lengths.max()), np.int64)
            for row, item in zip(tokens, items, strict=True):
                row[: len(item)] = item
            feed = {"tokens": tokens, "lengths": lengths}
        (values,) = self._session.run(["msp"], feed)
        return values.tolist()

    def score(self, bodies: Sequence[bytes]) -> list[float]:
        """Maximum softmax probabilities of a batch of files."""
        return self.msp([self.prepare(body) for body in bodies])


def _blank_file(spec: dict) -> bytes:
    """A valid file for an input of the manifest's `spec`."""
    if spec["kind"] == "text":
        return b"warm"
    file = io.BytesIO()
    Image.new("RGB", (spec["width"], spec["height"])).save(file, "PNG")
    return file.getvalue()
