"""The recipe: the schema of everything that a training run depends on."""

from collections.abc import Collection
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag, model_validator

from bundle import LOGIT_SCORES, SCORES, ImageInput
from training.recipe.components import Component

Task = Literal["classification", "density", "language-model"]

Precision = Literal["32-true", "bf16-mixed", "16-mixed"]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Source(_Section):
    """One data set: what Hugging Face `datasets.load_dataset` reads, and which rows of it.

    `format` is a builder (`parquet`, `imagefolder`, `csv`, `json`, `text`) for files at `path`, or `hub` for a hub
    name, of which `split` is read; `also` are further files of the same kind, read behind it. Relative paths are looked
    up in the data directory (`--data`, environment variable OOD_DATA), image files that a csv or json file names in
    that file's folder. `image` or `text` is the column of the inputs, `label` that of the classes. `part` takes a share
    of the rows, in an order that is random and always the same: [0, 0.8] and [0.8, 1] have none in common. `limit`
    takes so many rows, evenly spread.
    """

    path: str
    also: tuple[str, ...] = ()
    format: Literal["parquet", "imagefolder", "csv", "json", "text", "hub"] = "parquet"
    split: str = "train"
    image: str = "image"
    text: str = "text"
    label: str | None = None
    exclude_labels: tuple[str, ...] = ()
    part: tuple[float, float] | None = None
    limit: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _part_is_an_interval(self) -> Self:
        if self.part is not None and not 0 <= self.part[0] < self.part[1] <= 1:
            raise ValueError("part: give two shares, 0 <= from < to <= 1")
        return self


class Synthetic(_Section):
    """A synthetic out-of-distribution set, made from a seed (paper, appendix A)."""

    synthetic: str
    size: int = Field(default=4000, ge=1)
    jpeg_quality: int | None = Field(default=75, ge=1, le=100)


_SOURCE, _SYNTHETIC = ALTERNATIVES = ("data set", "synthetic set")
"""What an evaluation set can be; pydantic puts the word into the place of an error."""


def _kind_of_set(plan: Any) -> str:
    synthetic = "synthetic" in plan if isinstance(plan, dict) else isinstance(plan, Synthetic)
    return _SYNTHETIC if synthetic else _SOURCE


TestSet = Annotated[
    Annotated[Source, Tag(_SOURCE)] | Annotated[Synthetic, Tag(_SYNTHETIC)], Discriminator(_kind_of_set)
]
"""An out-of-distribution set, synthetic where it has the key `synthetic`."""


class TextConfig(_Section):
    """What a text model takes: at most `max_tokens` tokens.

    `tokenizer` is a tokenizer.json, a folder with one, or a model's name on the hub. Without it one is made of the
    in-distribution training texts, of words or characters (`unit`): the `vocabulary_size` most frequent that occur
    `min_frequency` times or more. `normalize: penn-treebank` brings every text into that corpus's form: lower case, N
    for numbers, no punctuation, words between spaces.
    """

    kind: Literal["text"] = "text"
    max_tokens: int = Field(default=256, ge=1)
    tokenizer: str | None = None
    vocabulary_size: int = Field(default=20_000, ge=3)
    min_frequency: int = Field(default=2, ge=1)
    lowercase: bool = True
    unit: Literal["word", "character"] = "word"
    normalize: Literal["penn-treebank"] | None = None

    @model_validator(mode="after")
    def _every_choice_counts(self) -> Self:
        if self.tokenizer is not None and (self.unit != "word" or self.normalize is not None):
            raise ValueError("unit and normalize are for a tokenizer that is made here; tokenizer names a finished one")
        if self.normalize is not None and not self.lowercase:
            raise ValueError(f"lowercase: false: '{self.normalize}' is in lower case")
        return self


class LikelihoodConfig(_Section):
    """How the bits of a density or a language model are counted.

    A density's are per pixel, or `per` colour channel, as papers report them. A language model's count the end of a
    text as a symbol with `count_end`; texts are scored `window` symbols at a time.
    """

    per: Literal["pixel", "channel"] = "channel"
    count_end: bool = True
    window: int = Field(default=32, ge=1)


class InDistribution(_Section):
    """The data the model is for: train and test, and what is held out of train for calibration.

    Without a `test` of its own, `test_size` examples are held out of train for that too.
    """

    train: Source
    test: Source | None = None
    test_size: int | None = Field(default=None, ge=1)
    calibration_size: int = Field(default=2000, ge=20)

    @model_validator(mode="after")
    def _one_test_set(self) -> Self:
        if (self.test is None) == (self.test_size is None):
            raise ValueError("give either test, a data set of its own, or test_size, to hold it out of train")
        return self


class Outliers(_Section):
    """The auxiliary outliers (D_out^OE) and what happens when some of them are in-distribution examples."""

    train: TestSet
    duplicates: Literal["refuse", "remove"] = "refuse"


class AugmentationConfig(_Section):
    """Random translation by padding and cropping, mirroring, cutout, distortion; see `training.data.Augmentation`."""

    pad: int = Field(default=4, ge=0)
    flip: bool = True
    cutout: int = Field(default=0, ge=0)
    zoom: float = Field(default=1.0, gt=0, le=1)
    jitter: float = Field(default=0.0, ge=0)
    share: float = Field(default=1.0, gt=0, le=1)

    @model_validator(mode="after")
    def _share_has_an_effect(self) -> Self:
        if self.share < 1 and self.zoom == 1 and self.jitter == 0:
            raise ValueError("share: is that of the images with zoom or jitter, and neither is given")
        return self


class MuonConfig(_Section):
    """Muon's rate and momentum; see `training.fitting.muon`.

    The defaults are Jordan's for CIFAR-10, with his rate of 0.24 for batches of 2000 scaled by the root to 512.
    """

    learning_rate: float = Field(default=0.12, gt=0)
    momentum: float = Field(default=0.6, ge=0, lt=1)


class Stage(_Section):
    """One training phase. Its defaults are the paper's schedule for training image classifiers from scratch.

    It starts from an earlier stage or a .ckpt file, or from the average of several ones' weights (Izmailov et al. 2018,
    arXiv:1803.05407), of which batch normalisations then need an epoch to learn the statistics.
    `momentum` is Nesterov's, for sgd. `norm_bias_rate` times faster are biases of batch normalisations learned, with as
    much less weight decay (Jordan 2024, arXiv:2404.00498, section 3.4, takes 64). `muon`, beside sgd, trains the
    weights of convolutions, each of which must have a normalisation behind it. `augmentation` is for images, outliers
    with an `outlier_augmentation` excepted: outliers that are distorted as in-distribution images are not are more
    diverse. `group_by_length` is for texts: those of a batch have similar lengths, so that little of it is padding.
    """

    objective: Component
    start_from: str | Annotated[tuple[str, ...], Field(min_length=2)] | None = None
    epochs: int = Field(default=100, ge=1)
    batch_size: int = Field(default=128, ge=1)
    outlier_ratio: float = Field(default=2.0, gt=0)
    learning_rate: float = Field(default=0.1, gt=0)
    warmup: float = Field(default=0.0, ge=0, lt=1)
    optimizer: Literal["sgd", "adam", "adamw"] = "sgd"
    momentum: float = Field(default=0.9, ge=0, lt=1)
    norm_bias_rate: float = Field(default=1.0, gt=0)
    muon: MuonConfig | None = None
    weight_decay: float = Field(default=5e-4, ge=0)
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    augmentation: AugmentationConfig = AugmentationConfig()
    outlier_augmentation: AugmentationConfig | None = None
    group_by_length: bool = False

    @property
    def starts(self) -> tuple[str, ...]:
        """What it starts from; nothing where it starts from scratch."""
        return (self.start_from,) if isinstance(self.start_from, str) else self.start_from or ()

    @model_validator(mode="after")
    def _muon_is_beside_sgd(self) -> Self:
        if self.muon is not None and self.optimizer != "sgd":
            raise ValueError(f"muon: trains convolutions beside sgd, the optimizer is {self.optimizer}")
        return self


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


class EvaluationConfig(_Section):
    """The out-of-distribution sets and how often the paper's 1:5 mixture is drawn.

    `ood` are the test sets, which no choice may touch; `validation` the sets that choices are made by, reported apart.
    """

    ood: dict[str, TestSet] = Field(min_length=1)
    validation: dict[str, TestSet] = {}
    draws: int = Field(default=10, ge=2)

    @property
    def sets(self) -> dict[str, TestSet]:
        """All of them."""
        return self.ood | self.validation

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
    image: better by a little, for twice the compute. A language model reads texts of any length: it is served on
    `max_tokens` where those are not the input's.
    """

    stage: str
    version: Annotated[str, BeforeValidator(_as_text), Field(pattern=r"^[1-9][0-9]{0,8}$")] = "1"
    scores: tuple[str, ...] = LOGIT_SCORES
    default_score: str = "msp"
    alpha: float = Field(default=0.01, gt=0, lt=1)
    tolerance: float = Field(default=1e-3, gt=0)
    mirror: bool = False
    max_tokens: int | None = Field(default=None, ge=1)


class Recipe(_Section):
    """A whole run: data, network, stages in order, evaluation, export.

    `task` says what is learned: classes, or with `likelihood` the density of images or a language model of texts. With
    `confidence_branch` the network has one more output, the learned confidence b(x) that the objectives
    `confidence` and `confidence_outlier_exposure` train and the score `confidence` reads.
    """

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")
    description: str = ""
    task: Task = "classification"
    seed: int = Field(default=1, ge=0)
    input: Annotated[ImageInput | TextConfig, Discriminator("kind")]
    in_distribution: InDistribution
    outliers: Outliers | None = None
    architecture: Component
    confidence_branch: bool = False
    likelihood: LikelihoodConfig = LikelihoodConfig()
    stages: dict[str, Stage] = Field(min_length=1)
    trainer: Trainer = Trainer()
    evaluation: EvaluationConfig
    export: Export

    def changed_for(self, other: "Recipe", trained: Collection[str]) -> list[str]:
        """The keys in which `other` would have trained the stages `trained` otherwise than this recipe did."""
        sections = {"task", "seed", "input", "in_distribution", "outliers", "architecture", "confidence_branch"}
        before, now = (recipe.model_dump(mode="json", include=sections) for recipe in (self, other))
        changed = [key for key in now if now[key] != before[key]]
        return changed + [f"stages.{name}" for name in trained if self.stages[name] != other.stages.get(name)]

    @model_validator(mode="after")
    def _task_fits_the_input(self) -> Self:
        text = isinstance(self.input, TextConfig)
        if (self.task == "language-model" and not text) or (self.task == "density" and text):
            raise ValueError(f"task: {self.task} is not for input.kind {self.input.kind}")
        if self.task != "classification" and self.confidence_branch:
            raise ValueError("confidence_branch: a classifier's, the task is " + self.task)
        if self.task != "classification" and self.export.mirror:
            raise ValueError("export.mirror: averages a classifier's logits, the task is " + self.task)
        if self.task != "language-model" and self.export.max_tokens is not None:
            raise ValueError("export.max_tokens: a language model's, the task is " + self.task)
        return self

    @model_validator(mode="after")
    def _texts_are_not_treated_as_images(self) -> Self:
        if isinstance(self.input, TextConfig):
            plans = [*self.evaluation.ood.items(), *self.evaluation.validation.items()]
            plans += [("outliers", self.outliers.train)] if self.outliers is not None else []
            if synthetic := [name for name, plan in plans if isinstance(plan, Synthetic)]:
                raise ValueError(f"{', '.join(synthetic)}: synthetic sets are images, the input is text")
            augmented = [
                f"{name}.{key}"
                for name, stage in self.stages.items()
                for key, none in (("augmentation", AugmentationConfig()), ("outlier_augmentation", None))
                if getattr(stage, key) != none
            ]
            if augmented:
                raise ValueError(f"stages.{augmented[0]}: for images, the input is text")
            if self.export.mirror:
                raise ValueError("export.mirror: for images, the input is text")
        elif grouped := [name for name, stage in self.stages.items() if stage.group_by_length]:
            raise ValueError(f"stages.{grouped[0]}.group_by_length: for texts, the input is image")
        return self

    @model_validator(mode="after")
    def _stages_fit_together(self) -> Self:
        earlier: list[str] = []
        for name, stage in self.stages.items():
            for start in stage.starts:
                if start not in earlier and not start.endswith(".ckpt"):
                    known = ", ".join(earlier) or "none"
                    reason = f"'{start}' is no earlier stage ({known}) and no .ckpt file"
                    raise ValueError(f"stages.{name}.start_from: {reason}")
            earlier.append(name)
        if self.export.stage not in self.stages:
            raise ValueError(f"export.stage: '{self.export.stage}' is not one of {', '.join(self.stages)}")
        unknown = [name for name in self.export.scores if name not in SCORES]
        if unknown:
            raise ValueError(f"export.scores: unknown {', '.join(unknown)}; known: {', '.join(SCORES)}")
        if "confidence" in self.export.scores and not self.confidence_branch:
            raise ValueError("export.scores: 'confidence' needs confidence_branch: true")
        if self.export.default_score not in self.export.scores:
            raise ValueError(f"export.default_score: '{self.export.default_score}' is not among export.scores")
        return self
