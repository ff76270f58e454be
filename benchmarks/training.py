"""Training throughput on images compared with a plain PyTorch loop on the same network and data, in one run.

The upper limit is the speed of one large matrix product on the same cores, in the number format that `fit` chooses.
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
from training.fitting.hardware import fastest_precision
from training.fitting.lightning_module import TrainingTask
from training.models.classifier import ImageClassifier
from training.objectives import CrossEntropy
from training.recipe import Component, Precision, Stage

BATCH = 128
WARM_UP = 3


def measure(rounds: int, steps: int) -> None:
    """Report images per second of WRN-40-2 (no dropout) in the plain loop and in `fit`, and their ratio."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    generator = np.random.default_rng(0)
    n = BATCH * (steps + WARM_UP)
    x = generator.integers(0, 256, (n, 32, 32, 3), dtype=np.uint8)
    y = np.arange(n, dtype=np.int64) % 10
    flops = flops_per_image()
    precision = fastest_precision("cpu", "image")
    results = [(plain_loop(x, y), fit_loop(x, y), matmul_flops(precision)) for _ in range(rounds)]
    plain, fit, matmul = (median(column) for column in zip(*results, strict=True))
    figures = {
        "rounds": rounds,
        "precision": precision,
        "plain_loop_images_per_second": plain,
        "fit_images_per_second": fit,
        "fit_speedup": median(b / a for a, b, _ in results),
        "matrix_product_gflop_per_second": matmul / 1e9,
        "plain_loop_share_of_matrix_product": median(a * flops / limit for a, _, limit in results),
        "fit_share_of_matrix_product": median(b * flops / limit for _, b, limit in results),
    }
    report("training-wrn-40-2", figures, ("torch", "lightning", "numpy"))


def flops_per_image() -> float:
    """Floating-point operations of one training step, forward and backward, per image."""
    images = torch.zeros((2, 32, 32, 3), dtype=torch.uint8)
    with FlopCounterMode(display=False) as counter:
        network().train()(images).logits.sum().backward()
    return float(counter.get_total_flops()) / len(images)


def matmul_flops(precision: Precision, size: int = 2048, repeats: int = 5) -> float:
    """Floating-point operations per second of a large square matrix product."""
    a = torch.randn((size, size), dtype=torch.float32 if precision == "32-true" else torch.bfloat16)
    seconds: list[float] = []
    for _ in range(repeats):
        start = time.perf_counter()
        torch.mm(a, a)
        seconds.append(time.perf_counter() - start)
    return 2 * size**3 / median(seconds)


def network() -> ImageClassifier:
    """A WRN-40-2 with random weights, after its normalisation."""
    torch.manual_seed(0)
    return ImageClassifier(WideResNet(num_classes=10, dropout=0.0), SPEC)


def plain_loop(x: np.ndarray, y: np.ndarray) -> float:
    """Images per second of a typical tutorial loop: float32, one batch at a time."""
    model, augment = network().train(), Augmentation(4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4)
    loader = DataLoader(TensorDataset(torch.from_numpy(x), torch.from_numpy(y)), BATCH, shuffle=True, drop_last=True)
    ends: list[float] = []
    for images, targets in loader:
        # Contiguous channels-first floats, as torchvision's transforms return them.
        inputs = model.normalise(augment(images)).contiguous()
        loss = F.cross_entropy(model.network(inputs), targets)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch's gap
        optimizer.step()
        ends.append(time.perf_counter())
    return throughput(ends)


def fit_loop(x: np.ndarray, y: np.ndarray) -> float:
    """Images per second of the training loop of `fit`, with a recipe's defaults."""
    stage = Stage(objective=Component(name="cross_entropy"), batch_size=BATCH)
    images = Examples(StoredArray(x), y, tuple(map(str, range(10))), "noise", "memory", "0")
    model = network()
    convert_conv2d_weight_memory_format(model, torch.channels_last)
    return throughput(
        step_ends(TrainingTask(model, CrossEntropy(), stage, seed=0, augment=Augmentation(4)), images, stage)
    )


def step_ends(task: TrainingTask, examples: Examples, stage: Stage) -> list[float]:
    """The times at which the steps of one epoch in Lightning end."""
    recorder = StepEndRecorder()
    with tempfile.TemporaryDirectory() as folder:
        trainer = lightning.Trainer(
            default_root_dir=folder,
            precision=fastest_precision("cpu", "image"),
            accelerator="cpu",
            max_epochs=1,
            callbacks=[recorder],
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
    return recorder.ends


class StepEndRecorder(Callback):
    """Records the time at which each training step ends."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_train_batch_end(self, *_: object) -> None:
        self.ends.append(time.perf_counter())


def throughput(ends: list[float]) -> float:
    """Images per second of the median step after the warm-up."""
    return BATCH / median(np.diff(ends[WARM_UP - 1 :]).tolist())
