"""The versioned schema of `manifest.json`, the description of a bundle.

The bundle's graph has these tensors; N and L are dynamic:

- Inputs of an image model: `images` uint8 `[N, H, W, C]`.
- Inputs of a text model: `tokens` int64 `[N, L]` and `lengths` int64 `[N]`. Tokens after a text's length are padding,
  which changes no output.
- Outputs: every score, float32 `[N]`; of a classifier also `prediction` int64 `[N]` and `probability` float32 `[N]`.
"""

from typing import Annotated, Final, Literal, Self

from pydantic import AwareDatetime, Field, NonNegativeFloat, NonNegativeInt, PositiveInt, model_validator

from bundle.fields import Alpha, BundlePath, Percent, ScoreName, Sha256, Strict
from bundle.scores import COMBINED, SCORES

SCHEMA_VERSION: Final = 1
"""The schema that this version writes, and the newest that it reads."""

MANIFEST_NAME = "manifest.json"
"""The manifest's file name in a bundle."""


class ImageInput(Strict):
    """The input of an image model. The graph applies `mean` and `std`, per channel, to values in 0..1.

    `resize_to` is the size before a centre crop to `height` and `width`: the length of the shorter side, or height and
    width. Without it, an image is resized to `height` and `width` whatever its aspect ratio.
    """

    kind: Literal["image"] = "image"
    height: PositiveInt
    width: PositiveInt
    channels: Literal[1, 3]
    resize: Literal["bilinear", "bicubic", "lanczos"] = "bilinear"
    resize_to: PositiveInt | tuple[PositiveInt, PositiveInt] | None = None
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @model_validator(mode="after")
    def _one_per_channel(self) -> Self:
        if len(self.mean) != self.channels or len(self.std) != self.channels:
            raise ValueError(f"mean and std need one number for each of the {self.channels} channels")
        if min(self.std) <= 0:
            raise ValueError("std must be positive")
        return self

    @model_validator(mode="after")
    def _crop_is_inside(self) -> Self:
        if isinstance(self.resize_to, int) and self.resize_to < min(self.height, self.width):
            raise ValueError("resize_to is smaller than the shorter side of the crop")
        if isinstance(self.resize_to, tuple) and (self.resize_to[0] < self.height or self.resize_to[1] < self.width):
            raise ValueError("resize_to is smaller than the crop")
        return self


class TextInput(Strict):
    """The input of a text model: at most `max_tokens` token ids of `tokenizer`, a file in the bundle."""

    kind: Literal["text"] = "text"
    tokenizer: BundlePath
    max_tokens: PositiveInt


Input = Annotated[ImageInput | TextInput, Field(discriminator="kind")]
"""The input of a model, discriminated by `kind`."""

Precision = Literal["fp32", "fp16", "int8"]
"""The precision in which a graph computes its features. Scores are always float32."""


class ScoreOutput(Strict):
    """A score of the bundle.

    Attributes:
        name: its name in the score table.
        output: the graph output with its value.
        combines: the scores of the bundle that the score `combined` combines.
    """

    name: ScoreName
    output: Annotated[str, Field(min_length=1)]
    combines: tuple[ScoreName, ...] = ()


TensorDatatype = Literal[
    "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "FP32", "FP64", "BYTES"
]
"""The datatypes of the Open Inference Protocol."""


class ModelTensor(Strict):
    """An output of a wrapped classifier itself, which clients of the Open Inference Protocol may ask for.

    Attributes:
        name: the name for clients, for which `is_reserved_output` is False.
        output: the graph output with the values `[N, *shape]`.
        datatype: the type of the values.
        shape: the shape for one input, without the batch.
    """

    name: Annotated[str, Field(min_length=1)]
    output: Annotated[str, Field(min_length=1)]
    datatype: TensorDatatype
    shape: tuple[PositiveInt, ...]


_RESULT_OUTPUTS = {"flagged", "p_value", "anomaly", "threshold", "label", "prediction", "probability"}
_TEXT_OUTPUTS = {"truncated", "tokens_read", "tokens_total"}


def is_reserved_output(name: str) -> bool:
    """Whether `name` is that of an output about a score, the class or the tokens, such as `msp` or `msp.flagged`."""
    return name in _RESULT_OUTPUTS | _TEXT_OUTPUTS or name.split(".", maxsplit=1)[0] in SCORES


class LikelihoodSpec(Strict):
    """The unit of a likelihood's bits, and the graph output with the bits of each part of an input.

    Attributes:
        per: the unit; a pixel includes all its channels.
        counts_end: whether the end of a text counts as one more word or character.
        parts: the float32 output with the bits of each pixel, all channels together, `[N, H, W]`, or with those of
            each token and of the end `[N, L+1]`.
    """

    per: Literal["pixel", "channel", "word", "character"]
    counts_end: bool = False
    parts: Annotated[str, Field(min_length=1)]


class EvidenceSpec(Strict):
    """The graph output with the evidence of positions for the predicted class.

    Attributes:
        output: the float32 output `[N, H, W]`. The sum of an input's evidence and the bias of its class is the
            logit of the class.
        bias: the part of each class's logit that no position has.
    """

    output: Annotated[str, Field(min_length=1)]
    bias: tuple[Annotated[float, Field(allow_inf_nan=False)], ...]


class NeighboursSpec(Strict):
    """The graph outputs with the training examples whose features are nearest to those of an input.

    Attributes:
        output: the int64 output `[N, K]` with the numbers of the examples, the nearest first.
        distances: the float32 output `[N, K]` with the squared distances of normalised features.
        file: the JSON file with the class and the source of each example, in the order of their numbers.
    """

    output: Annotated[str, Field(min_length=1)]
    distances: Annotated[str, Field(min_length=1)]
    file: BundlePath


class CalibrationSpec(Strict):
    """The calibration: its file, the number of scores `n`, the data that they come from, the default alpha."""

    file: BundlePath
    n: PositiveInt
    source: str
    alpha: Alpha


class Parity(Strict):
    """The largest difference between the graph and its reference, per output, over `inputs` real inputs.

    The reference is the trained model, or the logits of a wrapped classifier. A graph of lower precision has no parity:
    its report compares its detection with float32's. `tolerance` is relative to scores above 1 in magnitude, and
    `max_difference` is absolute.
    """

    tolerance: NonNegativeFloat
    max_difference: dict[str, NonNegativeFloat]
    inputs: PositiveInt


class SampleScores(Strict):
    """The scores of the bundle's sample input at the export, on the CPU; a service compares its own with them."""

    file: BundlePath
    scores: dict[ScoreName, Annotated[float, Field(allow_inf_nan=False)]]


class DataFingerprint(Strict):
    """A data set that a model was made with; `role` is, for example, "in-distribution train".

    `left_out` counts the source's inputs that could not be used.
    """

    role: str
    name: str
    source: str
    rows: NonNegativeInt
    sha256: Sha256
    left_out: NonNegativeInt = 0


class Training(Strict):
    """The origin of a trained model: enough to train it again."""

    recipe: str
    recipe_sha256: Sha256
    data: list[DataFingerprint]
    seed: int
    objective: str
    stage: str
    commit: str | None
    packages: dict[str, str]
    hardware: str
    seconds: NonNegativeFloat
    started: AwareDatetime


class OODResult(Strict):
    """Detection on one out-of-distribution set, in percent, mean over draws. The set `mean` averages the others."""

    name: str
    stage: str
    score: ScoreName
    fpr95: Percent
    auroc: Percent
    aupr: Percent


class Evaluation(Strict):
    """The measured quality of a model: its classification error and its detection results."""

    error_percent: Percent | None
    sets: list[OODResult]


class Manifest(Strict):
    """The description of a bundle.

    `default_score_reason` says how the default score was chosen; bundles of older versions do not.
    `model_outputs` are a wrapped classifier's own outputs. `files` maps each file except the manifest to its SHA-256.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
    version: Annotated[str, Field(pattern=r"^[1-9][0-9]{0,8}$")]
    description: str
    modality: Literal["image", "text"]
    task: Literal["classification", "density", "language-model"]
    input: Input
    labels: list[str]
    scores: Annotated[list[ScoreOutput], Field(min_length=1)]
    default_score: ScoreName
    default_score_reason: str | None = None
    likelihood: LikelihoodSpec | None = None
    evidence: EvidenceSpec | None = None
    neighbours: NeighboursSpec | None = None
    model_outputs: tuple[ModelTensor, ...] = ()
    model: BundlePath = "model.onnx"
    calibration: CalibrationSpec
    training: Training | None = None
    evaluation: Evaluation | None = None
    precision: Precision = "fp32"
    parity: Parity | None = None
    sample: SampleScores | None = None
    created: AwareDatetime
    files: dict[BundlePath, Sha256]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        names = [score.name for score in self.scores]
        if self.modality != self.input.kind:
            raise ValueError(f"modality is {self.modality} but input.kind is {self.input.kind}")
        if self.task == "language-model" and self.modality != "text":
            raise ValueError("task language-model needs modality text")
        if self.task == "classification" and len(self.labels) < 2:
            raise ValueError("task classification needs at least two labels")
        if self.task != "classification" and self.labels:
            raise ValueError(f"task {self.task} has no labels")
        if self.task == "classification" and self.likelihood is not None:
            raise ValueError("likelihood is not for task classification")
        if len(set(names)) < len(names):
            raise ValueError("scores: a score is offered twice")
        own = [tensor.name for tensor in self.model_outputs]
        if len(set(own)) < len(own) or any(is_reserved_output(name) for name in own):
            raise ValueError("model_outputs: a name is used twice, or is that of an output of every model")
        if self.default_score not in names:
            raise ValueError(f"default_score {self.default_score} is not among scores ({', '.join(names)})")
        if MANIFEST_NAME in self.files:
            raise ValueError(f"files lists {MANIFEST_NAME}, which cannot hold its own digest")
        needed = {"model": self.model, "calibration.file": self.calibration.file}
        if isinstance(self.input, TextInput):
            needed["input.tokenizer"] = self.input.tokenizer
        for field, file in needed.items():
            if file not in self.files:
                raise ValueError(f"{field} names {file!r}, which files does not list")
        return self

    @model_validator(mode="after")
    def _evidence_is_of_this_model(self) -> Self:
        if self.evidence is None:
            return self
        if (self.task, self.modality) != ("classification", "image"):
            raise ValueError("evidence is for the classification of images")
        if len(self.evidence.bias) != len(self.labels):
            raise ValueError("evidence.bias needs one number for each label")
        return self

    @model_validator(mode="after")
    def _neighbours_are_of_this_model(self) -> Self:
        if self.neighbours is None:
            return self
        if self.task != "classification":
            raise ValueError("neighbours are for task classification")
        if self.neighbours.file not in self.files:
            raise ValueError(f"neighbours.file names {self.neighbours.file!r}, which files does not list")
        return self

    @model_validator(mode="after")
    def _combined_scores_are_offered(self) -> Self:
        names = {score.name for score in self.scores}
        for score in self.scores:
            if bool(score.combines) != (score.name == COMBINED.name):
                raise ValueError(f"scores: combines of {score.name}: only {COMBINED.name} has and needs it")
            if unknown := set(score.combines) - names:
                raise ValueError(f"scores: {score.name} combines {', '.join(sorted(unknown))}, which is not offered")
        return self

    @model_validator(mode="after")
    def _sample_is_of_this_bundle(self) -> Self:
        if self.sample is None:
            return self
        if self.sample.file not in self.files:
            raise ValueError(f"sample.file names {self.sample.file!r}, which files does not list")
        if unknown := self.sample.scores.keys() - {score.name for score in self.scores}:
            raise ValueError(f"sample.scores has {', '.join(sorted(unknown))}, which scores does not")
        return self
