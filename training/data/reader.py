"""Readers: turn the sources of a run into examples, one class per kind of input."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bundle import ImageInput, TextEncoder
from training.data.duplicates import separate_duplicates, text_hashes
from training.data.examples import Examples
from training.data.image_loading import image_hashes, load_images
from training.data.overlap import Overlap, find_overlap, find_text_overlap
from training.data.problems import BrokenInputs, Problem
from training.data.sources import DataLocations, Progress, Rows
from training.data.splits import split_in_distribution
from training.data.text_loading import load_texts, read_texts
from training.data.token_ids import NO_TOKEN
from training.data.tokenizer import existing_tokenizer, train_tokenizer
from training.pretrained_files import find_pretrained
from training.recipe import Recipe, Source, TextConfig


class Reader(Protocol):
    """Reads sources of one kind of input."""

    @property
    def left_out(self) -> list[Problem]:
        """The inputs that are left out of the sets loaded so far."""
        ...

    def load(self, source: Source, *, name: str, progress: Progress | None = None) -> Examples:
        """Load the examples of `source`; DataError if one cannot be read."""
        ...

    def overlap(
        self, reference: Examples, candidates: Examples, name: str, progress: Progress | None = None
    ) -> Overlap:
        """Find the rows of `candidates` that (nearly) duplicate an input of `reference`."""
        ...

    def content_hashes(self, source: Source, examples: Examples) -> list[bytes]:
        """The content hash of each of the `examples` that `load` read from `source`; copies have equal hashes."""
        ...

    def unknown_only(self, examples: Examples) -> NDArray[np.int64]:
        """The rows of texts whose tokens are all unknown to the model; none for images."""
        ...

    def write_sample(self, source: Source, folder: Path, row: int = 0) -> None:
        """Write one input of `source` into `folder` as a client sends it, for a first request."""
        ...


class ImageReader:
    """Reads images and resizes them to `spec`.

    Args:
        spec: the model's input.
        locations: the folders of data and caches.
        skip_broken: whether inputs that cannot be used are left out; otherwise `load` raises BrokenInputs.
    """

    def __init__(self, spec: ImageInput, locations: DataLocations, *, skip_broken: bool = False) -> None:
        self._spec = spec
        self._locations = locations
        self._skip_broken = skip_broken
        self._loaded: dict[Source, Examples] = {}

    def load(self, source: Source, *, name: str, progress: Progress | None = None) -> Examples:
        """Load images uint8 `[N, H, W, C]`."""
        if source not in self._loaded:
            self._loaded[source] = load_images(
                source, self._spec, self._locations, name=name, progress=progress, skip_broken=self._skip_broken
            )
        return replace(self._loaded[source], name=name)

    @property
    def left_out(self) -> list[Problem]:
        """The inputs that are left out of the sets loaded so far."""
        return _left_out(self._loaded.values())

    def overlap(
        self, reference: Examples, candidates: Examples, name: str, progress: Progress | None = None
    ) -> Overlap:
        """Find exact copies, re-encoded copies and mirror images."""
        report = None if progress is None else lambda done, n: progress(name, done, n)
        return find_overlap(reference, candidates, report)

    def content_hashes(self, source: Source, examples: Examples) -> list[bytes]:  # noqa: ARG002
        """The content hash of each image."""
        return image_hashes(examples.x)

    def unknown_only(self, examples: Examples) -> NDArray[np.int64]:  # noqa: ARG002
        """No row: a model reads every image."""
        return np.empty(0, dtype=np.int64)

    def write_sample(self, source: Source, folder: Path, row: int = 0) -> None:
        """Write `sample.png`."""
        image = self.load(source, name="sample").x[np.array([row], dtype=np.int64)][0]
        Image.fromarray(image.squeeze(axis=2) if image.shape[2] == 1 else image).save(folder / "sample.png")


class TextReader:
    """Reads texts and encodes them with `encoder`.

    Args:
        encoder: the model's tokenizer.
        locations: the folders of data and caches.
        skip_broken: whether inputs that cannot be used are left out; otherwise `load` raises BrokenInputs.
    """

    def __init__(self, encoder: TextEncoder, locations: DataLocations, *, skip_broken: bool = False) -> None:
        self._encoder = encoder
        self._locations = locations
        self._skip_broken = skip_broken
        self._loaded: dict[Source, tuple[Examples, Rows]] = {}

    def load(self, source: Source, *, name: str, progress: Progress | None = None) -> Examples:
        """Load token ids int32 `[N, max_tokens]`, filled with `NO_TOKEN`."""
        return replace(self._load(source, name, progress)[0], name=name)

    def _load(self, source: Source, name: str, progress: Progress | None = None) -> tuple[Examples, Rows]:
        if source not in self._loaded:
            self._loaded[source] = load_texts(
                source, self._encoder, self._locations, name=name, progress=progress, skip_broken=self._skip_broken
            )
        return self._loaded[source]

    @property
    def left_out(self) -> list[Problem]:
        """The inputs that are left out of the sets loaded so far."""
        return _left_out(examples for examples, _ in self._loaded.values())

    def overlap(
        self, reference: Examples, candidates: Examples, name: str, progress: Progress | None = None
    ) -> Overlap:
        """Find texts with the same token ids."""
        overlap = find_text_overlap(reference, candidates)
        if progress is not None:
            progress(name, len(candidates), len(candidates))
        return overlap

    def content_hashes(self, source: Source, examples: Examples) -> list[bytes]:
        """The content hash of each text as it is in the source: unlike token ids, it tells unknown words apart."""
        return text_hashes(self._load(source, examples.name)[1].texts)

    def unknown_only(self, examples: Examples) -> NDArray[np.int64]:
        """The rows whose tokens are all the unknown token, apart from special tokens."""
        if self._encoder.unknown_id is None:
            return np.empty(0, dtype=np.int64)
        tokens = examples.x[np.arange(len(examples), dtype=np.int64)]
        is_unknown = tokens == self._encoder.unknown_id
        carries_nothing = np.isin(tokens, [NO_TOKEN, *self._encoder.special_ids])
        return np.flatnonzero((is_unknown | carries_nothing).all(axis=1) & is_unknown.any(axis=1)).astype(np.int64)

    def write_sample(self, source: Source, folder: Path, row: int = 0) -> None:
        """Write `sample.txt`."""
        text = self._load(source, "sample")[1].texts[row]
        (folder / "sample.txt").write_text(text, encoding="utf-8")


def open_reader(recipe: Recipe, locations: DataLocations, tokenizer: Path) -> Reader:
    """Open the reader for the recipe's kind of input.

    Args:
        recipe: The recipe of the run.
        locations: The folders of data and caches.
        tokenizer: The tokenizer file of a text run; created if it does not exist.
    """
    if isinstance(recipe.input, ImageInput):
        return ImageReader(recipe.input, locations, skip_broken=recipe.skip_broken)
    if not tokenizer.exists():
        _create_tokenizer(recipe, recipe.input, locations, tokenizer)
    encoder = TextEncoder.load(tokenizer, recipe.input.max_tokens)
    return TextReader(encoder, locations, skip_broken=recipe.skip_broken)


def _left_out(sets: Iterable[Examples]) -> list[Problem]:
    # Sets may be parts of one source.
    return list(dict.fromkeys(problem for examples in sets for problem in examples.left_out))


def _create_tokenizer(recipe: Recipe, config: TextConfig, locations: DataLocations, path: Path) -> None:
    """Write the tokenizer that `config` asks for to `path`, atomically."""
    if config.tokenizer is not None:
        tokenizer = existing_tokenizer(config.tokenizer)
    elif recipe.pretrained is not None:
        pretrained = find_pretrained(recipe.pretrained.backbone, locations.data_dir)
        tokenizer = existing_tokenizer(str(pretrained if pretrained.is_dir() else pretrained.parent))
    else:
        data = recipe.in_distribution
        rows = _read_usable(recipe, data.train, locations)
        # Without the held-out splits: their words must be as unknown to the model as words of later inputs.
        split = split_in_distribution(len(rows), data, recipe.seed, rows.origin)
        test = None if data.test is None else text_hashes(_read_usable(recipe, data.test, locations).texts)
        train = separate_duplicates(split, text_hashes(rows.texts), test).train
        tokenizer = train_tokenizer(rows.at(train).texts, config)
    partial = path.with_suffix(".partial")
    tokenizer.save(str(partial))
    partial.rename(path)


def _read_usable(recipe: Recipe, source: Source, locations: DataLocations) -> Rows:
    """The texts of `source`; BrokenInputs if some cannot be used and the recipe does not skip them."""
    rows = read_texts(source, locations)
    if rows.problems and not recipe.skip_broken:
        raise BrokenInputs(rows.problems)
    return rows
