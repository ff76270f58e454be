"""The recipe of a training run: its sections and the rules between them."""

from collections.abc import Collection
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Discriminator, Field, model_validator

from bundle import COMBINED, LOGIT_SCORES, SCORES, ImageInput
from training.recipe.backbone import PRETRAINED, BackboneConfig
from training.recipe.components import Component
from training.recipe.data_config import InDistribution, Outliers, Source, Synthetic, TestSet
from training.recipe.section import Section
from training.recipe.stage import AugmentationConfig, Stage
from training.recipe.text_config import TextConfig

Task = Literal["classification", "density", "language-model"]

AUTO = "auto"
"""The default score of a recipe that leaves the choice to the validation sets."""

Precision = Literal["32-true", "bf16-mixed", "16-mixed"]
"""The number format of training, as Lightning names it."""


class LikelihoodConfig(Section):
    """How bits are counted by a density model or a language model.

    Attributes:
        per: Of a density model: bits per pixel, or per colour channel as papers report them.
        count_end: Of a language model: whether the end of a text counts as a symbol.
        window: Of a language model: the symbols scored at a time.
    """

    per: Literal["pixel", "channel"] = "channel"
    count_end: bool = True
    window: int = Field(default=32, ge=1)


class Trainer(Section):
    """The hardware options. On one device they do not change the result beyond rounding.

    `precision: auto` is mixed precision if the hardware computes it natively, else float32. With several `devices`,
    each processes batches of the stage's `batch_size`: an epoch has fewer and larger steps, and learning rates are
    multiplied by the number of devices for SGD, by its square root for Adam and Muon. On a GPU the data lie in its
    memory if they fit.
    """

    accelerator: str = "auto"
    devices: int | Literal["auto"] = "auto"
    strategy: str = "auto"
    precision: Precision | Literal["auto"] = "auto"
    channels_last: bool = True
    compile: bool = False
    threads: int | None = Field(default=None, ge=1)


class EvaluationConfig(Section):
    """The out-of-distribution sets, and the metrics measured on them.

    Attributes:
        ood: The test sets: no choice may depend on them.
        validation: The sets for making choices; the report lists them separately.
        held_out_outliers: Images that no stage trains on and that are in no test set, for example another part of the
            outliers. Validation sets that distort images distort these, and without them in-distribution training
            images.
        near: The names of sets that resemble the in-distribution data, for example similar classes. The others are far.
            The report has means of both groups.
        recalls: The recalls (true positive rates) at which false positive rates are measured, in addition to 0.95. By
            default 0.9 for texts, as in the paper's tables of texts, and none for images.
        draws: The number of draws of the paper's mixture, one outlier per five in-distribution inputs.
    """

    ood: dict[str, TestSet] = Field(min_length=1)
    validation: dict[str, TestSet] = Field(default_factory=dict)
    held_out_outliers: Source | None = None
    near: tuple[str, ...] = ()
    recalls: tuple[Annotated[float, Field(gt=0, le=1)], ...] | None = None
    draws: int = Field(default=10, ge=2)

    @property
    def sets(self) -> dict[str, TestSet]:
        """The test sets and the validation sets."""
        return self.ood | self.validation

    @model_validator(mode="after")
    def _test_and_validation_are_disjoint(self) -> Self:
        if both := sorted(self.ood.keys() & self.validation.keys()):
            raise ValueError(f"{', '.join(both)}: in ood and in validation; a test set decides nothing")
        return self

    @model_validator(mode="after")
    def _held_out_outliers_are_no_test_set(self) -> Self:
        if same := [name for name, config in self.ood.items() if config == self.held_out_outliers]:
            raise ValueError(f"held_out_outliers: the test set {same[0]}; a test set decides nothing")
        return self

    @model_validator(mode="after")
    def _near_sets_exist(self) -> Self:
        if unknown := [name for name in self.near if name not in self.sets]:
            raise ValueError(f"near: {', '.join(unknown)}: no set of ood or validation")
        return self


def _as_text(version: Any) -> Any:
    """An integer from YAML as text, the type of a manifest's version."""
    return str(version) if type(version) is int else version


class Export(Section):
    """The stage to export as a bundle, and the bundle's scores and tolerances.

    With `mirror`, every stage is calibrated, evaluated and served on the mean logits of each image and its mirror
    image: slightly better, at twice the compute. A language model can read longer texts than it was trained on;
    `max_tokens` is the limit of the bundle if it differs from the input's. `default_score: auto` is the score with the
    highest mean AUROC on the validation sets, and without validation sets the first of `scores`. `combine` names the
    two scores that the score `combined`, the last of `scores`, combines; a fifth of the calibration split then
    standardises them, and the other examples calibrate. With `neighbours`, the bundle of a classifier with the score
    `knn` has the classes and file names or row numbers of the training examples that inputs are compared with;
    explanations show the nearest ones.
    """

    stage: str
    version: Annotated[str, BeforeValidator(_as_text), Field(pattern=r"^[1-9][0-9]{0,8}$")] = "1"
    scores: tuple[str, ...] = Field(default=LOGIT_SCORES, min_length=1)
    combine: tuple[str, str] | None = None
    default_score: str = AUTO
    alpha: float = Field(default=0.01, gt=0, lt=1)
    tolerance: float = Field(default=1e-3, gt=0)
    mirror: bool = False
    max_tokens: int | None = Field(default=None, ge=1)
    neighbours: bool = True

    @model_validator(mode="after")
    def _combined_scores_exist(self) -> Self:
        if self.combine is None:
            if COMBINED.name in self.scores:
                raise ValueError(f"scores: '{COMBINED.name}' needs combine: [SCORE, SCORE]")
            return self
        if self.scores[-1] != COMBINED.name or self.scores.count(COMBINED.name) != 1:
            raise ValueError(f"combine: the last of scores must be '{COMBINED.name}'")
        others = set(self.scores[:-1])
        if missing := [name for name in self.combine if name not in others]:
            raise ValueError(f"combine: {', '.join(missing)} is not among scores, or is '{COMBINED.name}' itself")
        if len(set(self.combine)) != 2:
            raise ValueError("combine: names one score twice")
        return self


class Recipe(Section):
    """A training run: data, network, stages in order, evaluation and export.

    `task` is classification, or with `likelihood` a density of images or a language model of texts. With
    `confidence_branch` the network has one more output, the learned confidence b(x): the objectives `confidence` and
    `confidence_outlier_exposure` train it, and the score `confidence` reads it. With `skip_broken`, inputs that cannot
    be read and rows without a label are left out of all data sets; otherwise they are errors.
    """

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")
    description: str = ""
    task: Task = "classification"
    seed: int = Field(default=1, ge=0)
    input: Annotated[ImageInput | TextConfig, Discriminator("kind")]
    in_distribution: InDistribution
    outliers: Outliers | None = None
    skip_broken: bool = False
    architecture: Component
    confidence_branch: bool = False
    likelihood: LikelihoodConfig = LikelihoodConfig()
    stages: dict[str, Stage] = Field(min_length=1)
    trainer: Trainer = Trainer()
    evaluation: EvaluationConfig
    export: Export

    @property
    def sources(self) -> list[Source]:
        """Every data set that the run reads, each once, in the order of the recipe."""
        data, evaluation = self.in_distribution, self.evaluation
        sets = [data.train, data.test, None if self.outliers is None else self.outliers.train]
        sets += [*evaluation.ood.values(), *evaluation.validation.values(), evaluation.held_out_outliers]
        return list(dict.fromkeys(config for config in sets if isinstance(config, Source)))

    def changed_for(self, other: "Recipe", trained: Collection[str]) -> list[str]:
        """The keys whose value in `other` would change the result of the stages named in `trained`."""
        sections = {"task", "seed", "input", "in_distribution", "outliers", "architecture", "confidence_branch"}
        before, after = (recipe.model_dump(mode="json", include=sections) for recipe in (self, other))
        changed = [key for key in after if after[key] != before[key]]
        return changed + [f"stages.{name}" for name in trained if self.stages[name] != other.stages.get(name)]

    @property
    def pretrained(self) -> BackboneConfig | None:
        """The pretrained backbone, frozen or fine-tuned; None for other architectures."""
        return BackboneConfig.of(self.architecture)

    @property
    def backbone(self) -> BackboneConfig | None:
        """The frozen backbone whose features the classifier reads; None if the network reads inputs itself."""
        pretrained = self.pretrained
        return None if pretrained is None or pretrained.fine_tune else pretrained

    @property
    def fine_tuned(self) -> BackboneConfig | None:
        """The backbone that the stages train; None if there is none or it is frozen."""
        pretrained = self.pretrained
        return pretrained if pretrained is not None and pretrained.fine_tune else None

    @model_validator(mode="after")
    def _fine_tuning_has_two_learning_rates(self) -> Self:
        fine_tuned = self.fine_tuned
        for name, stage in self.stages.items():
            if (stage.backbone_learning_rate is None) != (fine_tuned is None):
                reason = "is missing" if fine_tuned is not None else f"is for '{PRETRAINED}' with fine_tune: true"
                raise ValueError(f"stages.{name}.backbone_learning_rate: {reason}")
        if fine_tuned is not None and (fine_tuned.backbone.endswith(".onnx") or fine_tuned.features is not None):
            raise ValueError("architecture.fine_tune: an ONNX file cannot be trained; name a transformers model")
        return self

    @model_validator(mode="after")
    def _backbone_is_classified(self) -> Self:
        if self.pretrained is not None and self.task != "classification":
            raise ValueError(f"architecture: '{PRETRAINED}' is for classification")
        if self.backbone is None:
            return self
        if grouped := [name for name, stage in self.stages.items() if stage.group_by_length]:
            raise ValueError(f"stages.{grouped[0]}.group_by_length: features of '{PRETRAINED}' have no length")
        if self.export.mirror:
            raise ValueError(f"export.mirror: is not for '{PRETRAINED}', whose classifier reads features")
        return self

    @model_validator(mode="after")
    def _task_matches_the_input(self) -> Self:
        text = isinstance(self.input, TextConfig)
        if (self.task == "language-model" and not text) or (self.task == "density" and text):
            raise ValueError(f"task: {self.task} is not for input.kind {self.input.kind}")
        if self.task != "classification" and self.confidence_branch:
            raise ValueError("confidence_branch: a classifier's, the task is " + self.task)
        if self.task != "classification" and self.export.mirror:
            raise ValueError("export.mirror: averages a classifier's logits, the task is " + self.task)
        if self.task != "classification" and self.export.combine is not None:
            raise ValueError("export.combine: a classifier's, the task is " + self.task)
        if self.task != "language-model" and self.export.max_tokens is not None:
            raise ValueError("export.max_tokens: a language model's, the task is " + self.task)
        return self

    @model_validator(mode="after")
    def _options_match_the_kind_of_input(self) -> Self:
        if isinstance(self.input, TextConfig):
            sets = [*self.evaluation.ood.items(), *self.evaluation.validation.items()]
            sets += [("outliers", self.outliers.train)] if self.outliers is not None else []
            if synthetic := [name for name, config in sets if isinstance(config, Synthetic)]:
                raise ValueError(f"{', '.join(synthetic)}: synthetic sets are images, the input is text")
            augmented = [
                f"{name}.{key}"
                for name, stage in self.stages.items()
                for key, default in (("augmentation", AugmentationConfig()), ("outlier_augmentation", None))
                if getattr(stage, key) != default
            ]
            if augmented:
                raise ValueError(f"stages.{augmented[0]}: for images, the input is text")
            if self.evaluation.held_out_outliers is not None:
                raise ValueError("evaluation.held_out_outliers: for distortions of images, the input is text")
            if self.export.mirror:
                raise ValueError("export.mirror: for images, the input is text")
        elif grouped := [name for name, stage in self.stages.items() if stage.group_by_length]:
            raise ValueError(f"stages.{grouped[0]}.group_by_length: for texts, the input is image")
        return self

    @model_validator(mode="after")
    def _references_exist(self) -> Self:
        earlier: list[str] = []
        for name, stage in self.stages.items():
            for start in stage.starts:
                if start not in earlier and not start.endswith(".ckpt"):
                    reason = f"'{start}' is no earlier stage ({', '.join(earlier) or 'none'}) and no .ckpt file"
                    raise ValueError(f"stages.{name}.start_from: {reason}")
            earlier.append(name)
        if self.export.stage not in self.stages:
            raise ValueError(f"export.stage: '{self.export.stage}' is not one of {', '.join(self.stages)}")
        unknown = [name for name in self.export.scores if name not in SCORES]
        if unknown:
            raise ValueError(f"export.scores: unknown {', '.join(unknown)}; known: {', '.join(SCORES)}")
        if "confidence" in self.export.scores and not self.confidence_branch:
            raise ValueError("export.scores: 'confidence' needs confidence_branch: true")
        if self.export.default_score not in (AUTO, *self.export.scores):
            raise ValueError(f"export.default_score: '{self.export.default_score}' is not among export.scores")
        return self
