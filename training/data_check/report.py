"""The result of a data check, as it is stored in JSON."""

from pydantic import BaseModel, ConfigDict

from training.data_check.checked_set import CheckedSet
from training.data_check.finding import Finding


class SetSummary(BaseModel):
    """A data set that was checked.

    Attributes:
        name: Its role.
        path: Its path.
        usable: The number of inputs that can be used.
        unusable: The number of inputs that cannot be read or have no label, and of blank texts.
        classes: The number of inputs of each class; None if the set is unlabelled.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    path: str
    usable: int
    unusable: int
    classes: dict[str, int] | None

    @classmethod
    def of(cls, checked: CheckedSet) -> "SetSummary":
        """The summary of a set."""
        return cls(
            name=checked.name,
            path=checked.rows.origin,
            usable=len(checked),
            unusable=len(checked.problems) + len(checked.blank),
            classes=checked.class_counts(),
        )


class DataCheck(BaseModel):
    """All findings of a data check, errors first.

    Attributes:
        sets: The sets that were checked.
        findings: The findings.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    sets: tuple[SetSummary, ...]
    findings: tuple[Finding, ...]

    @property
    def errors(self) -> int:
        """The number of findings that `run` refuses the data for."""
        return self._count("error")

    @property
    def warnings(self) -> int:
        """The number of warnings."""
        return self._count("warning")

    def _count(self, severity: str) -> int:
        return sum(finding.severity == severity for finding in self.findings)

    def to_json(self) -> str:
        """The text of `check.json`."""
        return self.model_dump_json(indent=1) + "\n"
