"""Training throughput of the paper's GRU on texts compared with a plain PyTorch loop, interleaved in one run.

The lengths are log-normal with a median of 60 tokens, cut at 256: similar to newsgroup posts.
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
from benchmarks.training import BATCH, step_ends
from training.architectures import GRUClassifier
from training.data import Examples, StoredArray
from training.data.token_ids import NO_TOKEN
from training.fitting.lightning_module import TrainingTask
from training.models.classifier import TextClassifier
from training.objectives import CrossEntropy
from training.recipe import Component, Stage

VOCABULARY, CLASSES, MAX_TOKENS = 20_000, 20, 256


def measure(rounds: int, steps: int) -> None:
    """Report texts per second of the plain loop and of `fit`, over an epoch of `steps` batches, and their ratio."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    texts, y = random_texts(BATCH * (steps + 1))
    results = [
        (plain_loop(texts, y), fit_loop(texts, y, grouped=False), fit_loop(texts, y, grouped=True))
        for _ in range(rounds)
    ]
    plain, ungrouped, grouped = (median(column) for column in zip(*results, strict=True))
    figures = {
        "rounds": rounds,
        "plain_loop_texts_per_second": plain,
        "fit_texts_per_second": ungrouped,
        "fit_grouped_by_length_texts_per_second": grouped,
        "fit_speedup": median(b / a for a, b, _ in results),
        "fit_grouped_by_length_speedup": median(c / a for a, _, c in results),
    }
    report("training-gru", figures, ("torch", "lightning", "numpy"))


def random_texts(n: int) -> tuple[list[Tensor], NDArray[np.int64]]:
    """`n` texts of random tokens, and their classes `[n]`."""
    generator = np.random.default_rng(0)
    lengths = np.clip(generator.lognormal(np.log(60), 0.9, n).astype(int), 1, MAX_TOKENS)
    texts = [torch.from_numpy(generator.integers(1, VOCABULARY, length)) for length in lengths]
    return texts, np.arange(n, dtype=np.int64) % CLASSES


def network() -> TextClassifier:
    """The paper's GRU with random weights."""
    torch.manual_seed(0)
    return TextClassifier(GRUClassifier(CLASSES, VOCABULARY))


def plain_loop(texts: list[Tensor], y: NDArray[np.int64]) -> float:
    """Texts per second of a typical tutorial loop: shuffled, padded to the longest text of the batch."""

    def collate(rows: list[int]) -> tuple[Tensor, Tensor, Tensor]:
        batch = [texts[row] for row in rows]
        lengths = torch.tensor([len(text) for text in batch])
        return pad_sequence(batch, batch_first=True), lengths, torch.tensor(y[rows])

    model = network().train()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    ends: list[float] = []
    rows = list(range(len(texts)))
    for tokens, lengths, targets in DataLoader(rows, BATCH, shuffle=True, drop_last=True, collate_fn=collate):  # type: ignore[arg-type]  # torch takes a list as data set
        loss = F.cross_entropy(model.network(tokens, lengths), targets)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch's gap
        optimizer.step()
        ends.append(time.perf_counter())
    return throughput(ends)


def fit_loop(texts: list[Tensor], y: NDArray[np.int64], *, grouped: bool) -> float:
    """Texts per second of the training loop of `fit`."""
    stage = Stage(
        objective=Component(name="cross_entropy"),
        batch_size=BATCH,
        optimizer="adam",
        learning_rate=0.01,
        weight_decay=0.0,
        group_by_length=grouped,
    )
    rows = np.full((len(texts), MAX_TOKENS), NO_TOKEN, dtype=np.int32)
    for row, text in zip(rows, texts, strict=True):
        row[: len(text)] = text.numpy()
    examples = Examples(StoredArray(rows), y, tuple(map(str, range(CLASSES))), "noise", "memory", "0")
    return throughput(step_ends(TrainingTask(network(), CrossEntropy(), stage, seed=0), examples, stage))


def throughput(ends: list[float]) -> float:
    """Texts per second between the ends of the first and the last step, so that short and long texts both count."""
    return BATCH * (len(ends) - 1) / (ends[-1] - ends[0])
