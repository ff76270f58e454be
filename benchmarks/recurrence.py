"""The QRNN's recurrence: step by step beside a parallel scan, in training with torch and in one window of a graph."""

import tempfile
import time
from collections.abc import Callable
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
TRAINING = ((64, 100), (64, 250))
SERVING = ((1, 32), (1, 64), (64, 32), (64, 64))
"""Texts and symbols: a training batch of words and of characters; one request and a full batch in a window of each."""


def measure(rounds: int, seconds: float) -> None:
    """Print and keep the milliseconds of both at every size, and the ratio of the medians."""
    figures: dict[str, Any] = {"rounds": rounds, "channels": CHANNELS}
    for texts, symbols in TRAINING:
        runs = {name: training_step(pool, texts, symbols) for name, pool in FORGET_POOLING.items()}
        figures |= compared(f"torch, {texts} x {symbols}, forward and backward", runs, rounds, seconds)
    with tempfile.TemporaryDirectory() as folder:
        for texts, symbols in SERVING:
            runs = {name: graph_run(pool, texts, symbols, Path(folder)) for name, pool in FORGET_POOLING.items()}
            figures |= compared(f"ONNX Runtime, {texts} x {symbols}", runs, rounds, seconds)
    report("recurrence", figures, ("torch", "onnxruntime", "numpy"))


def compared(size: str, runs: dict[str, Callable[[], object]], rounds: int, seconds: float) -> dict[str, float]:
    """The median milliseconds of each of `runs`, taken in turns, and how many times slower the second is."""
    taken = [{name: milliseconds(run, seconds) for name, run in runs.items()} for _ in range(rounds)]
    middle = {name: median(figures[name] for figures in taken) for name in runs}
    first, second = runs
    ratio = median(figures[second] / figures[first] for figures in taken)
    return {f"{size}, {name}, ms": value for name, value in middle.items()} | {f"{size}, {second} / {first}": ratio}


def milliseconds(run: Callable[[], object], seconds: float) -> float:
    """The median time of one call, of those that fit into `seconds`."""
    run()
    taken: list[float] = []
    end = time.perf_counter() + seconds
    while (start := time.perf_counter()) < end:
        run()
        taken.append(1e3 * (time.perf_counter() - start))
    return median(taken)


def training_step(pool: Pool, texts: int, symbols: int) -> Callable[[], object]:
    """A pass through `pool` and its gradients."""
    inputs = tuple(tensor.requires_grad_() for tensor in gates_and_cell(texts, symbols))

    def step() -> object:
        return torch.autograd.grad(pool(*inputs).sum(), inputs)

    return step


def graph_run(pool: Pool, texts: int, symbols: int, folder: Path) -> Callable[[], object]:
    """A pass through `pool` as ONNX Runtime computes it."""
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
    """A recurrence as a module, which is what the exporter takes."""

    def __init__(self, pool: Pool) -> None:
        super().__init__()
        self.pool = pool

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.pool(*inputs)


def gates_and_cell(texts: int, symbols: int) -> tuple[Tensor, Tensor, Tensor]:
    """Forget gates, candidates and the cell before them."""
    generator = np.random.default_rng(0)
    forget, candidate = (generator.random((texts, symbols, CHANNELS), dtype=np.float32) for _ in range(2))
    cell = generator.random((texts, CHANNELS), dtype=np.float32)
    return torch.from_numpy(forget), torch.from_numpy(candidate), torch.from_numpy(cell)
