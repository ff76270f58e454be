"""Training: our steps beside a plain PyTorch loop of the same network, batch and data, interleaved in one run."""

import logging
import tempfile
import time
from statistics import median

import lightning
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import convert_conv2d_weight_memory_format
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.models import SPEC
from benchmarks.results import report
from training.architectures import WideResNet
from training.classifier import ImageClassifier
from training.data import Augmentation, Images, StoredImages, paired_batches
from training.lightning_module import ClassifierTask
from training.objectives import CrossEntropy
from training.precision import fastest_precision
from training.recipe import Stage
from training.registry import Component

BATCH = 128
WARM_UP = 3


def measure(rounds: int, steps: int) -> None:
    """Print and keep images a second of WRN-40-2 (no dropout) both ways, and their ratio."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    generator = np.random.default_rng(0)
    n = BATCH * (steps + WARM_UP)
    x = generator.integers(0, 256, (n, 32, 32, 3), dtype=np.uint8)
    y = np.arange(n, dtype=np.int64) % 10
    taken = [(plain_loop(x, y), our_loop(x, y)) for _ in range(rounds)]
    plain, ours = (median(column) for column in zip(*taken, strict=True))
    ratio = median(b / a for a, b in taken)
    figures = {"rounds": rounds, "plain loop, images/s": plain, "ours, images/s": ours, "ratio": ratio}
    report("training-wrn-40-2", figures, ("torch", "lightning", "numpy"))


def network() -> nn.Module:
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
        loss = F.cross_entropy(model(augment(images)), targets)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch's gap
        optimizer.step()
        ends.append(time.perf_counter())
    return throughput(ends)


def our_loop(x: np.ndarray, y: np.ndarray) -> float:
    """Images a second of what `fit` runs, with a recipe's defaults."""
    stage = Stage(objective=Component(name="cross_entropy"), batch_size=BATCH)
    images = Images(StoredImages(x), y, tuple(map(str, range(10))), "noise", "memory", "0")
    model = network()
    convert_conv2d_weight_memory_format(model, torch.channels_last)
    task = ClassifierTask(model, CrossEntropy(), stage, seed=0)
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
        trainer.fit(task, paired_batches(images, None, batch_size=BATCH, outlier_ratio=2, seed=0))
    return throughput(clock.ends)


class Clock(Callback):
    """Notes when each training step ends."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_train_batch_end(self, *_: object) -> None:
        self.ends.append(time.perf_counter())


def throughput(ends: list[float]) -> float:
    """Images a second from the median step after the warm-up."""
    return BATCH / median(np.diff(ends[WARM_UP - 1 :]).tolist())
