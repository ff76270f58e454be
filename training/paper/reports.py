"""What was measured: the reports inside a model repository's bundles, by the recipe that made each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from bundle import MANIFEST_NAME, Bundle, DataFingerprint, Training, load_bundle
from training.errors import RunError
from training.evaluation import Report

_REPORT = "report/report.json"


@dataclass(frozen=True)
class Measured:
    """A bundle's report, its `stages` in order up to the one that the bundle serves, and the `data` that it names."""

    name: str
    version: int
    stages: Sequence[str]
    data: Sequence[DataFingerprint]
    report: Report

    @property
    def title(self) -> str:
        """The bundle's name and version."""
        return f"{self.name} version {self.version}"

    @property
    def scale(self) -> str:
        """How many examples it was trained on; epochs, time and hardware of every stage, in words."""
        trained_on = {"in-distribution train": "examples", "outliers": "outliers"}
        sizes = " and ".join(f"{each.rows:,} {trained_on[each.role]}" for each in self.data if each.role in trained_on)
        facts = self.report.provenance.items()
        stages = [f"{key.removeprefix('stage ')}: {value}" for key, value in facts if key.startswith("stage ")]
        return "; ".join([f"trained on {sizes}", *stages] if sizes else stages)


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
        measured = _measured(bundle, training)
        if recipe not in found or found[recipe].version < measured.version:
            found[recipe] = measured
    return found


def _measured(bundle: Bundle, training: Training) -> Measured:
    path = bundle.path / _REPORT
    try:
        report = Report.model_validate_json(path.read_text(encoding="utf-8"))
    except ValidationError as error:
        raise RunError(str(path), f"is no report: {error}", "Evaluate the run and export it again") from error
    return Measured(
        name=bundle.manifest.name,
        version=int(bundle.manifest.version),
        stages=report.stages[: report.stages.index(training.stage) + 1],
        data=training.data,
        report=report,
    )
