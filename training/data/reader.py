"""The reader: how a run's sources become examples, one class for each kind of input."""

from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image

from bundle import ImageInput, TextEncoder
from training.data.examples import Examples
from training.data.image_loading import load_images
from training.data.overlap import Overlap, find_overlap, find_text_overlap
from training.data.sources import DataLocations, Progress
from training.data.splits import split_in_distribution
from training.data.text_loading import load_texts, read_texts, strings
from training.data.tokenizer import existing_tokenizer, train_tokenizer
from training.recipe import InDistribution, Recipe, Source, TextConfig


class Reader(Protocol):
    """Reads sources of one kind of input."""

    def load(self, source: Source, *, name: str, progress: Progress | None = None) -> Examples:
        """The examples of `source`; DataError when something cannot be read."""
        ...

    def overlap(self, inside: Examples, outside: Examples, name: str, progress: Progress | None = None) -> Overlap:
        """Which of `outside` are (nearly) among `inside`."""
        ...

    def write_sample(self, source: Source, folder: Path, row: int = 0) -> None:
        """Write an input of `source`, as a client would send it, for somebody's first request."""
        ...


class ImageReader:
    """Reads images of the size that `spec` asks for."""

    def __init__(self, spec: ImageInput, locations: DataLocations) -> None:
        self._spec = spec
        self._locations = locations

    def load(self, source: Source, *, name: str, progress: Progress | None = None) -> Examples:
        """Images uint8 `[N, H, W, C]`."""
        return load_images(source, self._spec, self._locations, name=name, progress=progress)

    def overlap(self, inside: Examples, outside: Examples, name: str, progress: Progress | None = None) -> Overlap:
        """The same pictures, exactly or nearly."""
        report = progress
        return find_overlap(inside, outside, None if report is None else lambda done, n: report(name, done, n))

    def write_sample(self, source: Source, folder: Path, row: int = 0) -> None:
        """`sample.png`."""
        first = self.load(source, name="sample").x[np.array([row], dtype=np.int64)][0]
        Image.fromarray(first.squeeze(axis=2) if first.shape[2] == 1 else first).save(folder / "sample.png")


class TextReader:
    """Reads texts with `encoder`."""

    def __init__(self, encoder: TextEncoder, locations: DataLocations) -> None:
        self._encoder = encoder
        self._locations = locations

    def load(self, source: Source, *, name: str, progress: Progress | None = None) -> Examples:
        """Token ids int32 `[N, max_tokens]`, filled up with `NO_TOKEN`."""
        return load_texts(source, self._encoder, self._locations, name=name, progress=progress)

    def overlap(self, inside: Examples, outside: Examples, name: str, progress: Progress | None = None) -> Overlap:
        """The same texts, token by token."""
        found = find_text_overlap(inside, outside)
        if progress is not None:
            progress(name, len(outside), len(outside))
        return found

    def write_sample(self, source: Source, folder: Path, row: int = 0) -> None:
        """`sample.txt`."""
        first = strings(read_texts(source, self._locations), source)[row]
        (folder / "sample.txt").write_text(first, encoding="utf-8")


def open_reader(recipe: Recipe, locations: DataLocations, tokenizer: Path) -> Reader:
    """The reader of the recipe's kind of input; a text run's tokenizer is made on first use and kept at `tokenizer`."""
    if isinstance(recipe.input, ImageInput):
        return ImageReader(recipe.input, locations)
    if not tokenizer.exists():
        _make_tokenizer(recipe.input, recipe.in_distribution, recipe.seed, locations, tokenizer)
    return TextReader(TextEncoder.load(tokenizer, recipe.input.max_tokens), locations)


def _make_tokenizer(plan: TextConfig, data: InDistribution, seed: int, locations: DataLocations, path: Path) -> None:
    if plan.tokenizer is not None:
        tokenizer = existing_tokenizer(plan.tokenizer)
    else:
        found = read_texts(data.train, locations)
        # Words that only the held-out splits have must be as unknown to the model as those of later traffic.
        kept = split_in_distribution(len(found.table), data, seed, found.origin).train
        tokenizer = train_tokenizer(strings(found.at(kept), data.train), plan)
    partial = path.with_suffix(".partial")
    tokenizer.save(str(partial))
    partial.rename(path)
