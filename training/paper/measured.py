"""What was measured: the reports inside a model repository's bundles, by the recipe that made each."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from bundle import MANIFEST_NAME, Bundle, load_bundle
from training.errors import RunError
from training.evaluation import Report

_REPORT = "report/report.json"


@dataclass(frozen=True)
class Measured:
    """A bundle's report: its first stage is the `baseline`, `exposed` the stage that the bundle serves.

    `baseline` is None when there was but one stage.
    """

    name: str
    version: int
    baseline: str | None
    exposed: str
    report: Report

    @property
    def title(self) -> str:
        """The bundle's name and version."""
        return f"{self.name} version {self.version}"

    @property
    def scale(self) -> str:
        """Epochs, time and hardware of every stage, in words."""
        facts = self.report.provenance.items()
        return "; ".join(f"{key.removeprefix('stage ')}: {value}" for key, value in facts if key.startswith("stage "))


def measured_runs(models: Path) -> Mapping[str, Measured]:
    """The newest bundle of every recipe's name in the repository `models`, of those that hold a report.

    Raises RunError when `models` is no directory or a report cannot be read, BundleError when a bundle is not whole.
    """
    if not models.is_dir():
        raise RunError(str(models), "is no directory", "Give a model repository: --models DIR")
    found: dict[str, Measured] = {}
    for manifest in sorted(models.glob(f"*/*/{MANIFEST_NAME}")):
        # A hidden folder is an export that is still being written.
        if any(part.startswith(".") for part in manifest.relative_to(models).parts):
            continue
        bundle = load_bundle(manifest.parent)
        training = bundle.manifest.training
        if training is None or _REPORT not in bundle.manifest.files:
            continue
        # What was made of a bundle holds itself against that one, not against the paper.
        if bundle.manifest.precision != "fp32":
            continue
        recipe = Path(training.recipe).stem
        measured = _measured(bundle, training.stage)
        if recipe not in found or found[recipe].version < measured.version:
            found[recipe] = measured
    return found


def _measured(bundle: Bundle, stage: str) -> Measured:
    path = bundle.path / _REPORT
    try:
        report = Report.model_validate_json(path.read_text(encoding="utf-8"))
    except ValidationError as error:
        raise RunError(str(path), f"is no report: {error}", "Evaluate the run and export it again") from error
    first = report.stages[0]
    return Measured(
        name=bundle.manifest.name,
        version=int(bundle.manifest.version),
        baseline=None if first == stage else first,
        exposed=stage,
        report=report,
    )
