"""The model that every peer serves, from a request's bytes to its maximum softmax probability.

Run by each peer's own Python, which has onnxruntime, numpy, Pillow and tokenizers and nothing of this project. What a
server needs to know is in its environment, because some frameworks start worker processes without arguments.
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
"""Processes that each hold a session."""
THREADS = int(os.environ["BENCHMARK_THREADS"])
"""Threads of each session; workers times threads are the machine's cores."""
MAX_BATCH = int(os.environ["BENCHMARK_BATCH"])
"""Requests that a session computes together at most."""


class Scorer:
    """A bundle's graph in ONNX Runtime, and what turns a file into its input."""

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
        wanted = ("CUDAExecutionProvider", "CPUExecutionProvider")
        available = onnxruntime.get_available_providers()
        if wanted[0] in available:
            onnxruntime.preload_dlls()
        self._session = onnxruntime.InferenceSession(
            BUNDLE / manifest["model"], options, providers=[each for each in wanted if each in available]
        )
        self.msp([self.prepare(_blank(self._input))])

    def prepare(self, body: bytes) -> np.ndarray:
        """One image `[H, W, C]` uint8, or one text's token ids `[L]` int64."""
        if self._tokenizer is not None:
            (encoding,) = self._tokenizer.encode_batch_fast([body.decode()])
            return np.asarray(encoding.ids, np.int64)
        size = (self._input["width"], self._input["height"])
        image = Image.open(io.BytesIO(body)).convert("L" if self._input["channels"] == 1 else "RGB")
        if image.size != size:
            image = image.resize(size, Image.Resampling[self._input["resize"].upper()])
        return np.asarray(image, np.uint8).reshape(size[1], size[0], self._input["channels"])

    def msp(self, items: Sequence[np.ndarray]) -> list[float]:
        """The scores of a batch of prepared inputs."""
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
        """The scores of a batch of files."""
        return self.msp([self.prepare(body) for body in bodies])


def _blank(spec: dict) -> bytes:
    """A first input, so that no measured request pays for the session's first run."""
    if spec["kind"] == "text":
        return b"warm"
    file = io.BytesIO()
    Image.new("RGB", (spec["width"], spec["height"])).save(file, "PNG")
    return file.getvalue()
