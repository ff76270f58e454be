"""The recipe: one validated YAML file that says everything a training run depends on."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag, ValidationError, model_validator

from bundle import SCORES, ImageInput
from training.errors import RecipeError
from training.registry import Component

Precision = Literal["32-true", "bf16-mixed", "16-mixed"]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Source(_Section):
    """One data set: what Hugging Face `datasets.load_dataset` reads, and which rows of it.

    `format` is a builder (`parquet`, `imagefolder`, `csv`, `json`) for files at `path`, or `hub` for a hub name, of
    which `split` is read. Relative paths are looked up in the data directory (`--data`, environment variable OOD_DATA),
    image files that a csv or json file names in that file's folder. `limit` takes so many rows, evenly spread.
    """

    path: str
    format: Literal["parquet", "imagefolder", "csv", "json", "hub"] = "parquet"
    split: str = "train"
    image: str = "image"
    label: str | None = None
    exclude_labels: tuple[str, ...] = ()
    limit: int | None = Field(default=None, ge=1)


class Synthetic(_Section):
    """A synthetic out-of-distribution test set, made from a seed (paper, appendix A)."""

    synthetic: str
    size: int = Field(default=4000, ge=1)
    jpeg_quality: int | None = Field(default=75, ge=1, le=100)


_SOURCE, _SYNTHETIC = "data set", "synthetic set"


def _kind_of_set(plan: Any) -> str:
    synthetic = "synthetic" in plan if isinstance(plan, dict) else isinstance(plan, Synthetic)
    return _SYNTHETIC if synthetic else _SOURCE


TestSet = Annotated[
    Annotated[Source, Tag(_SOURCE)] | Annotated[Synthetic, Tag(_SYNTHETIC)], Discriminator(_kind_of_set)
]
"""An out-of-distribution set, synthetic where it has the key `synthetic`."""


class InDistribution(_Section):
    """The data the model is for: train and test, and what is held out of train for calibration."""

    train: Source
    test: Source
    calibration_size: int = Field(default=2000, ge=20)


class Outliers(_Section):
    """The auxiliary outliers (D_out^OE) and what happens when some of them are in-distribution images."""

    train: Source
    duplicates: Literal["refuse", "remove"] = "refuse"


class AugmentationPlan(_Section):
    """Random translation by padding and cropping, random mirroring, cutout; see `training.data.Augmentation`."""

    pad: int = Field(default=4, ge=0)
    flip: bool = True
    cutout: int = Field(default=0, ge=0)


class Stage(_Section):
    """One training phase. Its defaults are the paper's schedule for training from scratch."""

    objective: Component
    start_from: str | None = None
    epochs: int = Field(default=100, ge=1)
    batch_size: int = Field(default=128, ge=1)
    outlier_ratio: float = Field(default=2.0, gt=0)
    learning_rate: float = Field(default=0.1, gt=0)
    warmup: float = Field(default=0.0, ge=0, lt=1)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    weight_decay: float = Field(default=5e-4, ge=0)
    augmentation: AugmentationPlan = AugmentationPlan()


class Trainer(_Section):
    """How the hardware is used; on one device nothing here changes what is learned beyond rounding.

    `precision` auto is mixed where the hardware computes it natively, else float32. Each of several `devices` takes
    batches of the stage's `batch_size`, so that an epoch has fewer and larger steps.
    """

    accelerator: str = "auto"
    devices: int | Literal["auto"] = "auto"
    strategy: str = "auto"
    precision: Precision | Literal["auto"] = "auto"
    channels_last: bool = True
    compile: bool = False
    threads: int | None = Field(default=None, ge=1)


class EvaluationPlan(_Section):
    """The out-of-distribution sets and how often the paper's 1:5 mixture is drawn.

    `ood` are the test sets, which no choice may touch; `validation` the sets that choices are made by, reported apart.
    """

    ood: dict[str, TestSet] = Field(min_length=1)
    validation: dict[str, TestSet] = {}
    draws: int = Field(default=10, ge=2)

    @model_validator(mode="after")
    def _no_test_set_validates(self) -> Self:
        if both := sorted(self.ood.keys() & self.validation.keys()):
            raise ValueError(f"{', '.join(both)}: in ood and in validation; a test set decides nothing")
        return self


def _as_text(version: Any) -> Any:
    """A whole number as YAML reads it, as the text that a manifest holds."""
    return str(version) if type(version) is int else version


class Export(_Section):
    """Which stage becomes the bundle, and with which promises.

    With `mirror`, every stage is calibrated, evaluated and served on the mean logits of each image and its mirror
    image: better by a little, for twice the compute.
    """

    stage: str
    version: Annotated[str, BeforeValidator(_as_text), Field(pattern=r"^[1-9][0-9]{0,8}$")] = "1"
    scores: tuple[str, ...] = ("msp", "max_logit", "energy", "entropy", "kl_uniform")
    default_score: str = "msp"
    alpha: float = Field(default=0.01, gt=0, lt=1)
    tolerance: float = Field(default=1e-3, gt=0)
    mirror: bool = False


class Recipe(_Section):
    """A whole run: data, network, stages in order, evaluation, export."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")
    description: str = ""
    seed: int = Field(default=1, ge=0)
    input: ImageInput
    in_distribution: InDistribution
    outliers: Outliers | None = None
    architecture: Component
    stages: dict[str, Stage] = Field(min_length=1)
    trainer: Trainer = Trainer()
    evaluation: EvaluationPlan
    export: Export

    @property
    def weights_depend_on(self) -> dict[str, Any]:
        """The sections that decide what is learned; a change to any other needs no new training."""
        sections = {"seed", "input", "in_distribution", "outliers", "architecture", "stages"}
        return self.model_dump(mode="json", include=sections)

    @model_validator(mode="after")
    def _stages_fit_together(self) -> Self:
        earlier: list[str] = []
        for name, stage in self.stages.items():
            start = stage.start_from
            if start is not None and start not in earlier and not start.endswith(".ckpt"):
                known = ", ".join(earlier) or "none"
                raise ValueError(f"stages.{name}.start_from: '{start}' is no earlier stage ({known}) and no .ckpt file")
            earlier.append(name)
        if self.export.stage not in self.stages:
            raise ValueError(f"export.stage: '{self.export.stage}' is not one of {', '.join(self.stages)}")
        unknown = [name for name in self.export.scores if name not in SCORES]
        if unknown:
            raise ValueError(f"export.scores: unknown {', '.join(unknown)}; known: {', '.join(SCORES)}")
        if self.export.default_score not in self.export.scores:
            raise ValueError(f"export.default_score: '{self.export.default_score}' is not among export.scores")
        return self


def load_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read and validate a recipe file; `overrides` are `key.path=value`, the value read as YAML.

    A recipe that `extends` another file (a path relative to its own) starts from that one's keys.
    Raises RecipeError naming the file and the key.
    """
    raw = _read(path)
    for override in overrides:
        _apply(raw, override)
    return parse_recipe(raw, str(path))


class _Yaml(yaml.SafeLoader):
    """YAML whose floats are those of version 1.2: PyYAML reads 1e-3 as a text."""


_Yaml.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def _parse_yaml(text: str, origin: str) -> Any:
    try:
        return yaml.load(text, _Yaml)
    except yaml.YAMLError as error:
        raise RecipeError(origin, f"is not valid YAML: {error}", "Correct it") from error


def _read(path: Path, extending: tuple[Path, ...] = ()) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise RecipeError(str(path), f"cannot be read ({error.strerror})", "Give the path of a recipe file") from error
    except UnicodeDecodeError as error:
        raise RecipeError(str(path), f"is not UTF-8 text: {error}", "Give the path of a recipe file") from error
    raw = _parse_yaml(text, str(path))
    if not isinstance(raw, dict):
        raise RecipeError(str(path), "is not a mapping of keys to values", "See training/recipes for examples")
    base = raw.pop("extends", None)
    if base is None:
        return raw
    chain = (*extending, path.resolve())
    if not isinstance(base, str) or (path.parent / base).resolve() in chain:
        raise RecipeError(f"{path}: extends", f"{base!r} is no other recipe file", "Give a path relative to this file")
    return _merge(_read(path.parent / base, chain), raw)


def _merge(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`base` with `changes` laid over it, section by section; a named component is replaced as a whole."""
    merged = dict(base)
    for key, value in changes.items():
        below = merged.get(key)
        is_section = isinstance(below, dict) and isinstance(value, dict) and "name" not in value
        merged[key] = _merge(below or {}, value) if is_section else value
    return merged


def parse_recipe(raw: dict[str, Any], origin: str) -> Recipe:
    """Validate a recipe's plain data; raises RecipeError naming `origin` and every offending key."""
    try:
        # Strict JSON mode: lists become tuples, but "10" never becomes 10.
        return Recipe.model_validate_json(json.dumps(raw))
    except ValidationError as error:
        problems = "; ".join(f"{_key(each['loc'])}: {each['msg']}" for each in error.errors())
        raise RecipeError(origin, problems, "Correct the keys named; training/recipes has valid recipes") from error
    except TypeError as error:
        raise RecipeError(origin, f"holds a value YAML reads as a date or object: {error}", "Quote it") from error


def _key(location: tuple[int | str, ...]) -> str:
    """A key as the recipe's author wrote it, without the names of the alternatives that were tried."""
    return ".".join(str(part) for part in location if part not in (_SOURCE, _SYNTHETIC)) or "recipe"


def _apply(raw: dict[str, Any], override: str) -> None:
    key, separator, value = override.partition("=")
    if not separator or not key:
        raise RecipeError(override, "is not of the form key.path=value", "For example stages.oe.epochs=3")
    *parents, last = key.split(".")
    section = raw
    for parent in parents:
        section = section.setdefault(parent, {})
        if not isinstance(section, dict):
            raise RecipeError(key, f"'{parent}' holds a value, not a section", "Correct the key")
    section[last] = _parse_yaml(value, override)
