"""Training: our steps beside a plain PyTorch loop of the same network, batch and data, interleaved in one run.

The limit is what one large matrix product reaches on the same cores, in the number format that `fit` chooses for them.
"""

import logging
import tempfile
import time
from statistics import median

import lightning
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from torch.nn import functional as F
from torch.nn.utils import convert_conv2d_weight_memory_format
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.models import SPEC
from benchmarks.results import report
from training.architectures import WideResNet
from training.data import Augmentation, Examples, StoredArray, paired_batches
from training.fitting.lightning_module import TrainingTask
from training.fitting.precision import fastest_precision
from training.models.classifier import ImageClassifier
from training.objectives import CrossEntropy
from training.recipe import Component, Precision, Stage

BATCH = 128
WARM_UP = 3


def measure(rounds: int, steps: int) -> None:
    """Print and keep images a second of WRN-40-2 (no dropout) both ways, and their ratio."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    generator = np.random.default_rng(0)
    n = BATCH * (steps + WARM_UP)
    x = generator.integers(0, 256, (n, 32, 32, 3), dtype=np.uint8)
    y = np.arange(n, dtype=np.int64) % 10
    flops = flops_per_image()
    precision = fastest_precision("cpu")
    taken = [(plain_loop(x, y), our_loop(x, y), matmul_flops(precision)) for _ in range(rounds)]
    plain, ours, peak = (median(column) for column in zip(*taken, strict=True))
    figures = {
        "rounds": rounds,
        "precision": precision,
        "plain loop, images/s": plain,
        "ours, images/s": ours,
        "ratio": median(b / a for a, b, _ in taken),
        "matrix product, GFLOP/s": peak / 1e9,
        "share of it, plain loop": median(a * flops / limit for a, _, limit in taken),
        "share of it, ours": median(b * flops / limit for _, b, limit in taken),
    }
    report("training-wrn-40-2", figures, ("torch", "lightning", "numpy"))


def flops_per_image() -> float:
    """Floating-point operations of one training step, forward and backward, per image."""
    images = torch.zeros((2, 32, 32, 3), dtype=torch.uint8)
    with FlopCounterMode(display=False) as counter:
        network().train()(images).logits.sum().backward()
    return float(counter.get_total_flops()) / len(images)


def matmul_flops(precision: Precision, size: int = 2048, repeats: int = 5) -> float:
    """Floating-point operations a second of a large square matrix product."""
    a = torch.randn((size, size), dtype=torch.float32 if precision == "32-true" else torch.bfloat16)
    seconds: list[float] = []
    for _ in range(repeats):
        start = time.perf_counter()
        torch.mm(a, a)
        seconds.append(time.perf_counter() - start)
    return 2 * size**3 / median(seconds)


def network() -> ImageClassifier:
    """A fresh WRN-40-2 behind its normalisation."""
    torch.manual_seed(0)
    return ImageClassifier(WideResNet(num_classes=10, dropout=0.0), SPEC)


def plain_loop(x: np.ndarray, y: np.ndarray) -> float:
    """Images a second of the loop that every tutorial shows: float32, one batch at a time."""
    model, augment = network().train(), Augmentation(4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4)
    loader = DataLoader(TensorDataset(torch.from_numpy(x), torch.from_numpy(y)), BATCH, shuffle=True, drop_last=True)
    ends: list[float] = []
    for images, targets in loader:
        # Contiguous channels-first floats, as the usual transforms hand them to a network.
        inputs = model.normalise(augment(images)).contiguous()
        loss = F.cross_entropy(model.network(inputs), targets)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch's gap
        optimizer.step()
        ends.append(time.perf_counter())
    return throughput(ends)


def our_loop(x: np.ndarray, y: np.ndarray) -> float:
    """Images a second of what `fit` runs, with a recipe's defaults."""
    stage = Stage(objective=Component(name="cross_entropy"), batch_size=BATCH)
    images = Examples(StoredArray(x), y, tuple(map(str, range(10))), "noise", "memory", "0")
    model = network()
    convert_conv2d_weight_memory_format(model, torch.channels_last)
    return throughput(
        fitted(TrainingTask(model, CrossEntropy(), stage, seed=0, augment=Augmentation(4)), images, stage)
    )


def fitted(task: TrainingTask, examples: Examples, stage: Stage) -> list[float]:
    """When each step of an epoch by Lightning ended."""
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        trainer = lightning.Trainer(
            default_root_dir=folder,
            precision=fastest_precision("cpu"),
            accelerator="cpu",
            max_epochs=1,
            callbacks=[clock],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
        )
        loader = paired_batches(
            examples, None, batch_size=BATCH, outlier_ratio=2, seed=0, by_length=stage.group_by_length
        )
        trainer.fit(task, loader)
    return clock.ends


class Clock(Callback):
    """Notes when each training step ends."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_train_batch_end(self, *_: object) -> None:
        self.ends.append(time.perf_counter())


def throughput(ends: list[float]) -> float:
    """Images a second from the median step after the warm-up."""
    return BATCH / median(np.diff(ends[WARM_UP - 1 :]).tolist())
