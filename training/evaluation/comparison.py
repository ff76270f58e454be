"""The comparison: what a graph of lower precision detects against the full graph it was made of, set by set."""

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict

from training.evaluation.markdown_table import markdown_table


class AurocChange(BaseModel):
    """The AUROC of one set by one score, in percent, of the full graph (`before`) and of the other (`after`)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    set: str
    score: str
    before: float
    after: float

    @property
    def points(self) -> float:
        """How far it moved, in percentage points; more is better."""
        return round(self.after - self.before, 3)


class Comparison(BaseModel):
    """Every change from the stage `full` to the stage `variant`, which is in `precision`; the largest is below `limit`.

    `limit` is in percentage points, of either sign.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    precision: str
    full: str
    variant: str
    limit: float
    changes: list[AurocChange]

    @property
    def largest(self) -> AurocChange:
        """The largest change."""
        return max(self.changes, key=lambda change: abs(change.points))

    @property
    def beyond_limit(self) -> Sequence[AurocChange]:
        """The changes that reach the limit, the largest first."""
        found = [change for change in self.changes if abs(change.points) >= self.limit]
        return sorted(found, key=lambda change: -abs(change.points))


def comparison_section(found: Comparison) -> list[str]:
    """The paragraphs of the report that say what lower precision changed."""
    largest = found.largest
    rows = [
        [each.set, each.score, f"{each.before:.3f}", f"{each.after:.3f}", f"{each.points:+.3f}"]
        for each in found.changes
    ]
    return [
        f"## AUROC in {found.precision} against float32",
        f"The largest change is {largest.points:+.3f} points: {largest.set} by `{largest.score}`, from "
        f"{largest.before:.3f} to {largest.after:.3f}. An export is refused when any set moves by {found.limit:g} "
        "points or more, up or down.",
        markdown_table(["set", "score", found.full, found.variant, "change"], rows, text_columns=2),
    ]
