"""What answers look like: the schemas of the OpenAPI document, and of the answers that are not hot."""

from typing import Literal, Self

from pydantic import BaseModel, Field

from bundle import Evaluation, Input, LikelihoodSpec, Precision, Training


class ScoreAnswer(BaseModel):
    """One score of one input."""

    value: float = Field(description="The score as its paper defines it.")
    anomaly: float = Field(description="The score oriented so that larger is more anomalous.")
    threshold: float | None = Field(description="Flagged above this anomaly; null where nothing can be flagged.")
    p_value: float = Field(description="Split-conformal p-value.")
    flagged: bool


class Prediction(BaseModel):
    """What a classifier takes the input for."""

    label: str
    index: int
    probability: float


class InputErrorAnswer(BaseModel):
    """What is wrong with one input."""

    type: str = Field(examples=["undecodable-image"])
    detail: str


class TokenBits(BaseModel):
    """One token of a text and how many bits it was a surprise of."""

    token: str
    bits: float


class PixelExplanation(BaseModel):
    """The bits of each pixel of an image, all its channels together."""

    kind: Literal["pixels"]
    per: Literal["pixel", "channel"] = Field(description="What the score `bpp` counts; the heat map counts pixels.")
    heat_map: str = Field(description="A PNG of the model's image size, in base64; black is 0 bits.")
    max_bits: float = Field(description="What the brightest colour stands for.")


class TokenExplanation(BaseModel):
    """The bits of each token of a text."""

    kind: Literal["tokens"]
    per: Literal["word", "character"]
    tokens: list[TokenBits] = Field(description="As the model reads the text, up to its limit.")
    end_bits: float | None = Field(description="The bits of the text's end; null where the model does not count it.")


class Result(BaseModel):
    """One scored input; `flagged` and `p_value` are those of the first requested score."""

    index: int
    id: str | None
    flagged: bool
    p_value: float
    prediction: Prediction | None
    scores: dict[str, ScoreAnswer]
    explanation: PixelExplanation | TokenExplanation | None = Field(None, description="Where `explain` asked for it.")


class FailedResult(BaseModel):
    """One input that could not be scored; the others of the request still are."""

    index: int
    id: str | None
    error: InputErrorAnswer


class ScoreResponse(BaseModel):
    """The answer to a score request."""

    model: str
    version: str
    results: list[Result | FailedResult]
    errors: int = Field(description="How many of the results are errors.")
    warnings: list[str] | None = Field(None, description="Present where an option cannot have its effect.")


class CanaryAnswer(BaseModel):
    """The version that gets a share of the requests that name none."""

    version: str
    percent: float


class TrafficAnswer(BaseModel):
    """What becomes of requests that name no version."""

    serve: str = Field(description="The version that answers them.")
    canary: CanaryAnswer | None = Field(description="The version that answers a share of them instead.")
    shadow: list[str] = Field(description="The versions that score them, too, for the metrics only.")


class ModelSummary(BaseModel):
    """A served model; everything but `versions` and `traffic` is about `version`."""

    name: str
    version: str
    versions: list[str] = Field(description="The versions served, oldest first.")
    traffic: TrafficAnswer
    description: str
    modality: Literal["image", "text"]
    task: Literal["classification", "density", "language-model"]
    input: Input
    labels: list[str]
    scores: list[str]
    default_score: str
    likelihood: LikelihoodSpec | None = Field(description="How bits are counted, of models that score in bits.")
    alpha: float = Field(description="Default false-flag rate.")
    thresholds: dict[str, float | None] = Field(description="By score, at `alpha`; null: nothing can be flagged.")
    precision: Precision = Field(description="What the graph computes features in; scores are float32 in each.")
    provider: str = Field(description="The ONNX Runtime provider that runs it.")


class CalibrationAnswer(BaseModel):
    """What the thresholds stand on."""

    n: int
    source: str


class ModelDetail(ModelSummary):
    """A served model with its provenance and evaluation."""

    calibration: CalibrationAnswer
    training: Training | None
    evaluation: Evaluation | None


class RefusedBundle(BaseModel):
    """A bundle in the repository that is not served."""

    path: str
    reason: str


class ModelList(BaseModel):
    """The repository."""

    models: list[ModelSummary]
    refused: list[RefusedBundle]


class Status(BaseModel):
    """The state of the service."""

    status: str


class IndexEntry(BaseModel):
    """One version in the repository (V2 protocol)."""

    name: str
    version: str
    state: Literal["READY", "UNAVAILABLE"]
    reason: str = Field(description="Why it is not served; for a served version, why newer files of it are not.")

    @classmethod
    def at(cls, bundle_id: str, state: Literal["READY", "UNAVAILABLE"], reason: str) -> Self:
        """The entry of the folder `name/version`."""
        name, _, version = bundle_id.partition("/")
        return cls(name=name, version=version, state=state, reason=reason)


class Loaded(BaseModel):
    """A model after a load or an unload."""

    model: str
    versions: list[str] = Field(description="The versions served, oldest first.")


class DriftReset(BaseModel):
    """The drift evidence that was forgotten."""

    model: str
    evidence: dict[str, float] = Field(description="By version, its decimal logarithm before the reset.")
