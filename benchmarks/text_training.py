"""Training on texts: our epochs of the paper's GRU beside a plain PyTorch loop, interleaved in one run.

The lengths are log-normal, half of them beyond 60 tokens, the longest cut at 256: like posts to newsgroups.
"""

import logging
import time
from statistics import median

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader

from benchmarks.results import report
from benchmarks.training import BATCH, fitted
from training.architectures import GRUClassifier
from training.data import Examples, StoredArray
from training.data.token_ids import NO_TOKEN
from training.fitting.lightning_module import TrainingTask
from training.models.classifier import TextClassifier
from training.objectives import CrossEntropy
from training.recipe import Component, Stage

VOCABULARY, CLASSES, LONGEST = 20_000, 20, 256


def measure(rounds: int, steps: int) -> None:
    """Print and keep texts a second both ways, over an epoch of `steps` batches, and their ratio."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    texts, y = data(BATCH * (steps + 1))
    taken = [
        (plain_loop(texts, y), our_loop(texts, y, grouped=False), our_loop(texts, y, grouped=True))
        for _ in range(rounds)
    ]
    plain, mixed, grouped = (median(column) for column in zip(*taken, strict=True))
    figures = {
        "rounds": rounds,
        "plain loop, texts/s": plain,
        "ours, texts/s": mixed,
        "ours with group_by_length, texts/s": grouped,
        "ratio": median(b / a for a, b, _ in taken),
        "ratio with group_by_length": median(c / a for a, _, c in taken),
    }
    report("training-gru", figures, ("torch", "lightning", "numpy"))


def data(n: int) -> tuple[list[Tensor], NDArray[np.int64]]:
    """`n` texts of random tokens, and their classes."""
    generator = np.random.default_rng(0)
    lengths = np.clip(generator.lognormal(np.log(60), 0.9, n).astype(int), 1, LONGEST)
    texts = [torch.from_numpy(generator.integers(1, VOCABULARY, length)) for length in lengths]
    return texts, np.arange(n, dtype=np.int64) % CLASSES


def network() -> TextClassifier:
    """The paper's GRU with fresh weights."""
    torch.manual_seed(0)
    return TextClassifier(GRUClassifier(CLASSES, VOCABULARY))


def plain_loop(texts: list[Tensor], y: NDArray[np.int64]) -> float:
    """Texts a second of the loop that every tutorial shows: shuffled, padded to the longest of the batch."""

    def collate(rows: list[int]) -> tuple[Tensor, Tensor, Tensor]:
        chosen = [texts[row] for row in rows]
        return (
            pad_sequence(chosen, batch_first=True),
            torch.tensor([len(each) for each in chosen]),
            torch.tensor(y[rows]),
        )

    model = network().train()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    ends: list[float] = []
    rows = list(range(len(texts)))
    for tokens, lengths, targets in DataLoader(rows, BATCH, shuffle=True, drop_last=True, collate_fn=collate):  # type: ignore[arg-type]  # a list is a data set
        loss = F.cross_entropy(model.network(tokens, lengths), targets)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch's gap
        optimizer.step()
        ends.append(time.perf_counter())
    return throughput(ends)


def our_loop(texts: list[Tensor], y: NDArray[np.int64], *, grouped: bool) -> float:
    """Texts a second of what `fit` runs."""
    stage = Stage(
        objective=Component(name="cross_entropy"),
        batch_size=BATCH,
        optimizer="adam",
        learning_rate=0.01,
        weight_decay=0.0,
        group_by_length=grouped,
    )
    rows = np.full((len(texts), LONGEST), NO_TOKEN, dtype=np.int32)
    for row, text in zip(rows, texts, strict=True):
        row[: len(text)] = text.numpy()
    examples = Examples(StoredArray(rows), y, tuple(map(str, range(CLASSES))), "noise", "memory", "0")
    return throughput(fitted(TrainingTask(network(), CrossEntropy(), stage, seed=0), examples, stage))


def throughput(ends: list[float]) -> float:
    """Texts a second from the first step's end to the last's: steps of short and of long texts all count."""
    return BATCH * (len(ends) - 1) / (ends[-1] - ends[0])
