"""The report: the figures of every stage on every set by every score, as data that is stored as JSON."""

from typing import Self

from pydantic import BaseModel, ConfigDict, Field

from bundle import Evaluation, OODResult
from training.evaluation.comparison import PrecisionComparison
from training.evaluation.shortcuts import ShortcutCheck
from training.evaluation.stage_probabilities import ProbabilityResult
from training.evaluation.usability import Usability

IN_DISTRIBUTION = "in-distribution"
"""The name of the in-distribution test set among sets."""

MEAN = "mean"
"""The name of the row with the means over all test sets."""

NEAR_MEAN, FAR_MEAN = "mean near", "mean far"
"""The names of the rows with the means over the near and over the far test sets, if the recipe marks sets as near."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class Spread(_Part):
    """A percentage's mean and standard deviation over draws."""

    mean: float
    deviation: float


class FprAtRecall(_Part):
    """The false positive rate at one recall, in percent.

    Attributes:
        recall: The share of the outliers that is detected, in 0..1.
        fpr: The rate at the highest threshold of the recall nearest to it, which is the smallest rate.
        authors: The rate by the tie rule of the authors' code, for comparisons with the paper's tables.
    """

    recall: float
    fpr: Spread
    authors: Spread


class FlaggedShare(_Part):
    """The share of a set that the calibrated threshold at `alpha` flags, in percent.

    `flagged` is None if the calibration set is too small for any flag at this alpha.
    """

    alpha: float
    flagged: float | None


class SetResult(_Part):
    """One stage, one score, one set: the metrics and the flagged shares of the set, in percent.

    Attributes:
        set: The name of the set, or of a mean over sets.
        stage: The stage.
        score: The score.
        fpr95: The false positive rate at 95% recall, by the rule of `FprAtRecall.fpr`.
        auroc: The area under the ROC curve.
        aupr: The area under the precision-recall curve.
        flagged: The share flagged at the report's alpha.
        fpr_at_recall: False positive rates at each recall of the evaluation; empty in reports of older versions.
        flagged_at: The shares flagged at 1% and 5% false flags; empty in reports of older versions.
    """

    set: str
    stage: str
    score: str
    fpr95: Spread
    auroc: Spread
    aupr: Spread
    flagged: float
    fpr_at_recall: list[FprAtRecall] = []
    flagged_at: list[FlaggedShare] = []

    def rates_at(self, recall: float) -> FprAtRecall | None:
        """The false positive rates at `recall`; None if the evaluation did not measure them."""
        return next((rates for rates in self.fpr_at_recall if rates.recall == recall), None)

    def flagged_share(self, alpha: float) -> float | None:
        """The share flagged at `alpha`; None if it was not measured or if nothing can be flagged."""
        return next((share.flagged for share in self.flagged_at if share.alpha == alpha), None)


class FalseFlags(_Part):
    """The percentage of the in-distribution test set that a stage's calibrated threshold flags.

    `flagged` is that at the report's alpha, `flagged_at` those at 1% and 5% false flags.
    """

    stage: str
    score: str
    flagged: float
    flagged_at: list[FlaggedShare] = []


class FalseFlagInterval(_Part):
    """The false-flag rate over calibration sets of the report's size, in percent, and the smallest usable alpha.

    Attributes:
        lower: The lower end of the interval that has the rate of 95% of calibration sets.
        upper: The upper end of this interval.
        exceeds_alpha: The share of calibration sets whose rate exceeds the report's alpha.
        smallest_alpha: 1 / (n + 1), in 0..1: below this alpha no input can be flagged.
    """

    lower: float
    upper: float
    exceeds_alpha: float
    smallest_alpha: float


class RemovedInputs(_Part):
    """The numbers of inputs that were left out of an out-of-distribution set.

    Attributes:
        trained_on: Inputs that are (nearly) training outliers.
        unknown: Texts whose tokens are all unknown to the model.
    """

    trained_on: int = 0
    unknown: int = 0


class MeanBits(_Part):
    """The mean of a likelihood score of one stage on one set, in bits."""

    set: str
    stage: str
    score: str
    bits: float


class SegmentResults(_Part):
    """The figures of a language model on segments: each set's texts joined and cut into pieces of equal length.

    Attributes:
        symbols: The words or characters of a segment.
        in_dist_size: The number of in-distribution segments.
        calibration_size: The number of segments behind each calibration.
        sizes: The name of each out-of-distribution set with segments -> their number.
        results: The detection metrics of each set, and their means.
        false_flags: The flagged share of the in-distribution segments.
    """

    symbols: int
    in_dist_size: int
    calibration_size: int
    sizes: dict[str, int]
    results: list[SetResult]
    false_flags: list[FalseFlags]


class Report(_Part):
    """All figures of an evaluation, in percent unless stated otherwise.

    Attributes:
        alpha: The false-flag rate of the flags on average over calibration sets, in 0..1.
        draws: The number of random draws behind each mean and deviation.
        default_score: The score that the exported bundle decides by.
        default_score_reason: The reason of its choice; empty in reports of older versions.
        in_dist: The name of the in-distribution test set; `inside` in JSON.
        in_dist_size: Its number of inputs; `inside_size` in JSON.
        calibration_size: The number of inputs behind each calibration.
        usability: Whether the exported detector is usable; None in reports of older versions.
        sets: The name of each out-of-distribution set -> its description.
        synthetic: The sets that are generated, such as noise.
        removed: The name of each out-of-distribution set -> the inputs left out of it, if there are any.
        upper_bounds: The sets of outliers like those trained on: detection of other outliers is at most as good.
        shortcuts: By which single features the outliers differ from the in-distribution data; None if not checked.
        validation: The sets that serve for choosing between settings and count in no average.
        near: The sets that resemble the in-distribution data; the others are far.
        error: The name of each classifier's stage -> its classification error.
        results: The detection metrics of each set, and their means.
        false_flags: The flagged share of the in-distribution test set.
        false_flag_interval: The false-flag rate that single calibration sets have; None in reports of older versions.
        probabilities: Calibration of each classifier's probabilities.
        bits: Mean likelihoods in bits, of densities and language models.
        segments: The figures of a language model by segment; None for other models and in reports of older versions.
        comparison: In the report of a lower-precision bundle, the comparison with full precision.
        provenance: Facts about the run, as shown in the report.
    """

    alpha: float
    draws: int
    default_score: str
    default_score_reason: str = ""
    in_dist: str = Field(alias="inside")
    in_dist_size: int = Field(alias="inside_size")
    calibration_size: int
    usability: Usability | None = None
    sets: dict[str, str]
    synthetic: tuple[str, ...] = ()
    removed: dict[str, RemovedInputs] = {}
    validation: tuple[str, ...] = ()
    upper_bounds: tuple[str, ...] = ()
    shortcuts: ShortcutCheck | None = None
    near: tuple[str, ...] = ()
    error: dict[str, float] = {}
    results: list[SetResult]
    false_flags: list[FalseFlags]
    false_flag_interval: FalseFlagInterval | None = None
    probabilities: list[ProbabilityResult] = []
    bits: list[MeanBits] = []
    segments: SegmentResults | None = None
    comparison: PrecisionComparison | None = None
    provenance: dict[str, str]

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The report of a `report.json`; pydantic's ValidationError if the text is no report."""
        return cls.model_validate_json(text)

    def to_json(self) -> str:
        """The text of `report.json`."""
        return self.model_dump_json(by_alias=True, indent=1) + "\n"

    @property
    def stages(self) -> list[str]:
        """The stages in their order."""
        return list(dict.fromkeys(row.stage for row in self.results))

    @property
    def recalls(self) -> list[float]:
        """The recalls at which every result has false positive rates by both rules."""
        return [rates.recall for rates in self.results[0].fpr_at_recall] if self.results else []

    @property
    def test_sets(self) -> list[str]:
        """The sets that are not for validation."""
        return [name for name in self.sets if name not in self.validation]

    @property
    def grouped_test_sets(self) -> dict[str, list[str]]:
        """The name of each mean -> its test sets: near sets, far sets and all; only all if no test set is near."""
        near = [name for name in self.test_sets if name in self.near]
        far = [name for name in self.test_sets if name not in self.near]
        groups = {NEAR_MEAN: near, FAR_MEAN: far} if near else {}
        return {mean: sets for mean, sets in groups.items() if sets} | {MEAN: self.test_sets}

    @property
    def by_segment(self) -> "Report | None":
        """The report with the figures by segment in place of those by text; None if there are none."""
        if self.segments is None:
            return None
        segments = self.segments
        sets = {name: f"{size:,} segments of {segments.symbols} symbols" for name, size in segments.sizes.items()}
        return self.model_copy(
            update={
                "in_dist_size": segments.in_dist_size,
                "calibration_size": segments.calibration_size,
                "sets": sets,
                "validation": tuple(name for name in self.validation if name in sets),
                "results": segments.results,
                "false_flags": segments.false_flags,
                "false_flag_interval": None,
                "usability": None,
                "bits": [],
                "segments": None,
            }
        )

    def find(self, name: str, stage: str, score: str) -> SetResult:
        """The result of one set, stage and score."""
        return next(r for r in self.results if (r.set, r.stage, r.score) == (name, stage, score))


def manifest_evaluation(report: Report, stage: str) -> Evaluation:
    """The figures for a bundle's manifest: those of every stage on the test sets, and the error of `stage`."""
    return Evaluation(
        error_percent=report.error.get(stage),
        sets=[
            OODResult(
                name=result.set,
                stage=result.stage,
                score=result.score,
                fpr95=result.fpr95.mean,
                auroc=result.auroc.mean,
                aupr=result.aupr.mean,
            )
            for result in report.results
            if result.set not in report.validation
        ],
    )
