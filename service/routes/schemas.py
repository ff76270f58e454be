"""The bodies of the responses of these routes."""

from typing import Literal

from pydantic import BaseModel, Field

from bundle import Evaluation, Input, LikelihoodSpec, Precision, Training
from service.scoring.explanations import Explanation


class CanaryAnswer(BaseModel):
    """The version that gets a share of the requests without a version."""

    version: str
    percent: float


class TrafficAnswer(BaseModel):
    """The versions that score requests without a version."""

    serve: str = Field(description="The version that answers them.")
    canary: CanaryAnswer | None = Field(description="The version that answers a share of them instead.")
    shadow: list[str] = Field(description="The versions that score them as well, for the metrics only.")


class FalseFlagRateAnswer(BaseModel):
    """The share of in-distribution inputs flagged at the default alpha: at most alpha on average over calibration sets.

    A deployment has one calibration set. With ties among anomalies the rate is smaller.
    """

    lower: float = Field(description="Lower end of the interval that has the rate of 95% of calibration sets.")
    upper: float = Field(description="Upper end of this interval.")
    exceeds_alpha: float = Field(description="The share of calibration sets whose rate exceeds alpha.")


class CalibrationAnswer(BaseModel):
    """The data that the thresholds are computed from, and the accuracy of the false-flag rate that they give."""

    n: int
    source: str
    smallest_alpha: float | None = Field(
        default=None, description="1 / (n + 1): at a smaller alpha nothing can be flagged."
    )
    false_flag_rate: FalseFlagRateAnswer | None = None


class ModelSummary(BaseModel):
    """A served model; all fields but `versions` and `traffic` are about `version`."""

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
    likelihood: LikelihoodSpec | None = Field(description="How bits are counted, for models that score in bits.")
    explanations: list[Explanation] = Field(description="What `explain=true` shows.")
    alpha: float = Field(description="Default false-flag rate, the most on average over calibration sets.")
    calibration: CalibrationAnswer
    thresholds: dict[str, float | None] = Field(description="By score, at `alpha`; null: nothing can be flagged.")
    precision: Precision = Field(description="The type that the graph computes features in; scores are float32.")
    provider: str = Field(description="The ONNX Runtime provider that runs it.")


class ModelDetail(ModelSummary):
    """A served model with its provenance and evaluation."""

    default_score_reason: str | None = Field(description="How the default score was chosen; null: not recorded.")
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
    reason: str | None = Field(default=None, description="Why the service is not ready, if it is not by intention.")


class DriftReset(BaseModel):
    """The drift evidence before its reset."""

    model: str
    evidence: dict[str, float] = Field(description="By version, its decimal logarithm.")
