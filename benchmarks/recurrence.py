"""Time of the QRNN's recurrence, step by step and as a parallel scan, in torch and in ONNX Runtime."""

import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn
from torch.export import Dim

from benchmarks.results import report
from training.architectures.forget_pooling import FORGET_POOLING

Pool = Callable[[Tensor, Tensor, Tensor], Tensor]
CHANNELS = 256
# Numbers of texts and symbols.
TRAINING_SIZES = ((64, 100), (64, 250))
"""A training batch of words, and one of characters."""
SERVING_SIZES = ((1, 32), (1, 64), (64, 32), (64, 64))
"""One request and a full batch, in a graph's window of words and of characters."""


def measure(rounds: int, seconds: float) -> None:
    """Report the milliseconds of both implementations at every size, and their ratio."""
    figures: dict[str, Any] = {"rounds": rounds, "channels": CHANNELS}
    for texts, symbols in TRAINING_SIZES:
        runs = {name: training_step(pool, texts, symbols) for name, pool in FORGET_POOLING.items()}
        figures[f"torch_forward_backward_{texts}x{symbols}"] = compare(runs, rounds, seconds)
    with tempfile.TemporaryDirectory() as folder:
        for texts, symbols in SERVING_SIZES:
            runs = {name: graph_run(pool, texts, symbols, Path(folder)) for name, pool in FORGET_POOLING.items()}
            figures[f"onnxruntime_{texts}x{symbols}"] = compare(runs, rounds, seconds)
    report("recurrence", figures, ("torch", "onnxruntime", "numpy"))


def compare(runs: Mapping[str, Callable[[], object]], rounds: int, seconds: float) -> dict[str, float]:
    """The median milliseconds of two runs in interleaved rounds, and the second as a multiple of the first."""
    results = [{name: milliseconds(run, seconds) for name, run in runs.items()} for _ in range(rounds)]
    first, second = runs
    return {
        **{f"{name}_ms": median(result[name] for result in results) for name in runs},
        f"{second}_to_{first}_ratio": median(result[second] / result[first] for result in results),
    }


def milliseconds(run: Callable[[], object], seconds: float) -> float:
    """The median milliseconds of the calls within `seconds`, after one call that is not timed."""
    run()
    durations: list[float] = []
    end = time.perf_counter() + seconds
    while (start := time.perf_counter()) < end:
        run()
        durations.append(1e3 * (time.perf_counter() - start))
    return median(durations)


def training_step(pool: Pool, texts: int, symbols: int) -> Callable[[], object]:
    """A forward and backward pass through `pool`."""
    inputs = tuple(tensor.requires_grad_() for tensor in gates_and_cell(texts, symbols))

    def step() -> object:
        return torch.autograd.grad(pool(*inputs).sum(), inputs)

    return step


def graph_run(pool: Pool, texts: int, symbols: int, folder: Path) -> Callable[[], object]:
    """A forward pass through `pool` in ONNX Runtime."""
    path = folder / f"{pool.__name__}-{symbols}.onnx"
    names = ("forget", "candidate", "cell")
    if not path.exists():
        torch.onnx.export(
            _Pooling(pool).eval(),
            gates_and_cell(2, symbols),
            str(path),
            input_names=list(names),
            # One tuple for all inputs, because `forward` takes them as `*inputs`.
            dynamic_shapes=(({0: Dim("N")},) * len(names),),
            opset_version=18,
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    inputs = {name: tensor.numpy() for name, tensor in zip(names, gates_and_cell(texts, symbols), strict=True)}
    return lambda: session.run(None, inputs)


class _Pooling(nn.Module):
    """A recurrence as a module, as the exporter requires."""

    def __init__(self, pool: Pool) -> None:
        super().__init__()
        self.pool = pool

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.pool(*inputs)


def gates_and_cell(texts: int, symbols: int) -> tuple[Tensor, Tensor, Tensor]:
    """Random forget gates and candidates `[N, W, H]`, and the cell `[N, H]` before them."""
    generator = np.random.default_rng(0)
    forget, candidate = (generator.random((texts, symbols, CHANNELS), dtype=np.float32) for _ in range(2))
    cell = generator.random((texts, CHANNELS), dtype=np.float32)
    return torch.from_numpy(forget), torch.from_numpy(candidate), torch.from_numpy(cell)
