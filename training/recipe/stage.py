"""The `stages` section of a recipe: the schedule, optimiser and augmentation of one training stage."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from training.recipe.components import Component
from training.recipe.section import Section


class AugmentationConfig(Section):
    """The options of `training.data.Augmentation`: translation, mirroring, cutout, zoom and jitter."""

    pad: int = Field(default=4, ge=0)
    flip: bool = True
    cutout: int = Field(default=0, ge=0)
    zoom: float = Field(default=1.0, gt=0, le=1)
    jitter: float = Field(default=0.0, ge=0)
    share: float = Field(default=1.0, gt=0, le=1)

    @model_validator(mode="after")
    def _share_has_an_effect(self) -> Self:
        if self.share < 1 and self.zoom == 1 and self.jitter == 0:
            raise ValueError("share: applies to zoom and jitter, and neither is set")
        return self


class MuonConfig(Section):
    """The learning rate and momentum of Muon; see `training.fitting.muon`.

    The defaults are Jordan's for CIFAR-10. His rate of 0.24 for batches of 2000 is scaled to batches of 512 by the
    square root of the ratio.
    """

    learning_rate: float = Field(default=0.12, gt=0)
    momentum: float = Field(default=0.6, ge=0, lt=1)


class Stage(Section):
    """One training stage. The defaults are the paper's schedule for training image classifiers from scratch.

    Attributes:
        start_from: An earlier stage or a .ckpt file; or several, whose weights are averaged (Izmailov et al. 2018,
            arXiv:1803.05407). Batch normalisations then need an epoch to estimate their statistics.
        backbone_learning_rate: The learning rate of a fine-tuned backbone; `learning_rate` is that of its classifier.
        outlier_ratio: Outliers per in-distribution example in each step.
        outlier_pool: How many times as many outliers are drawn as used. A classifier learns from those that it predicts
            most confidently (`training.fitting.outlier_mining`), at the cost of a forward pass of all drawn ones.
        momentum: Nesterov momentum, for sgd.
        norm_bias_rate: Biases of batch normalisations are trained with this multiple of the learning rate and with
            weight decay divided by it (Jordan 2024, arXiv:2404.00498, section 3.4, uses 64).
        muon: With sgd, trains the weights of convolutions by Muon. Each convolution must be followed by a
            normalisation.
        gradient_norm: The largest norm of a step's gradient; longer gradients are scaled to it.
        augmentation: For images.
        outlier_augmentation: For outliers, instead of `augmentation`. Distortions that in-distribution images do not
            get make outliers more diverse.
        group_by_length: For texts: a batch holds texts of similar lengths, so that it needs little padding.
    """

    objective: Component
    start_from: str | Annotated[tuple[str, ...], Field(min_length=2)] | None = None
    epochs: int = Field(default=100, ge=1)
    batch_size: int = Field(default=128, ge=1)
    outlier_ratio: float = Field(default=2.0, gt=0)
    outlier_pool: float = Field(default=1.0, ge=1)
    learning_rate: float = Field(default=0.1, gt=0)
    backbone_learning_rate: float | None = Field(default=None, gt=0)
    warmup: float = Field(default=0.0, ge=0, lt=1)
    optimizer: Literal["sgd", "adam", "adamw"] = "sgd"
    momentum: float = Field(default=0.9, ge=0, lt=1)
    norm_bias_rate: float = Field(default=1.0, gt=0)
    muon: MuonConfig | None = None
    weight_decay: float = Field(default=5e-4, ge=0)
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    gradient_norm: float | None = Field(default=None, gt=0)
    augmentation: AugmentationConfig = AugmentationConfig()
    outlier_augmentation: AugmentationConfig | None = None
    group_by_length: bool = False

    @property
    def starts(self) -> tuple[str, ...]:
        """The stages or files that the stage starts from; empty if it starts from scratch."""
        return (self.start_from,) if isinstance(self.start_from, str) else self.start_from or ()

    @model_validator(mode="after")
    def _muon_needs_sgd(self) -> Self:
        if self.muon is not None and self.optimizer != "sgd":
            raise ValueError(f"muon: needs the optimizer sgd, not {self.optimizer}")
        return self
