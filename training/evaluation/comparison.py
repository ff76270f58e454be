"""Comparison of a lower-precision graph with the full-precision graph that it was converted from, set by set."""

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, Field


class AurocChange(BaseModel):
    """The AUROC of one set and score, in percent, in full precision (`before`) and in lower precision (`after`)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    set: str
    score: str
    before: float
    after: float

    @property
    def points(self) -> float:
        """The change in percentage points; positive is better."""
        return round(self.after - self.before, 3)


class PrecisionComparison(BaseModel):
    """The AUROC changes of all sets and scores between two stages of a report.

    Attributes:
        precision: The lower precision, `fp16` or `int8`.
        full: The name of the full-precision stage in the report.
        low_precision: The name of the lower-precision stage; `variant` in JSON.
        limit: The size of a change, in percentage points, from which the export is refused.
        changes: One change per set and score.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    precision: str
    full: str
    low_precision: str = Field(alias="variant")
    limit: float
    changes: list[AurocChange]

    @property
    def largest(self) -> AurocChange:
        """The change with the largest absolute value."""
        return max(self.changes, key=lambda change: abs(change.points))

    @property
    def beyond_limit(self) -> Sequence[AurocChange]:
        """The changes that reach the limit, the largest first."""
        refused = [change for change in self.changes if abs(change.points) >= self.limit]
        return sorted(refused, key=lambda change: -abs(change.points))
