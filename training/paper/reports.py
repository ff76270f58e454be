"""The evaluation reports of a model repository's bundles, by recipe."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from bundle import MANIFEST_NAME, Bundle, DataFingerprint, Training, load_bundle
from training.errors import RunError
from training.evaluation import Report

_REPORT = "report/report.json"


@dataclass(frozen=True)
class BundleReport:
    """The report of a bundle.

    Attributes:
        name: The bundle's name.
        version: The bundle's version.
        stages: The stages in order, up to the one that the bundle serves.
        data: The fingerprints of the data that the bundle was trained and tested on.
        report: The figures.
    """

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
        """The number of training examples, and epochs, time and hardware of every stage, as text."""
        nouns = {"in-distribution train": "examples", "outliers": "outliers"}
        sizes = " and ".join(f"{data.rows:,} {nouns[data.role]}" for data in self.data if data.role in nouns)
        facts = self.report.provenance.items()
        stages = [f"{key.removeprefix('stage ')}: {value}" for key, value in facts if key.startswith("stage ")]
        return "; ".join([f"trained on {sizes}", *stages] if sizes else stages)


def latest_reports(models: Path) -> Mapping[str, BundleReport]:
    """Recipe name -> the report of its newest bundle in the repository `models`; bundles without a report are skipped.

    Raises:
        RunError: `models` is no directory, or a report cannot be read.
        BundleError: A bundle is incomplete.
    """
    if not models.is_dir():
        raise RunError(str(models), "is no directory", "Give a model repository: --models DIR")
    latest: dict[str, BundleReport] = {}
    for manifest in sorted(models.glob(f"*/*/{MANIFEST_NAME}")):
        # A hidden folder is an unfinished export.
        if any(part.startswith(".") for part in manifest.relative_to(models).parts):
            continue
        bundle = load_bundle(manifest.parent)
        training = bundle.manifest.training
        if training is None or _REPORT not in bundle.manifest.files:
            continue
        # A lower-precision bundle is compared with its full-precision bundle, not with the paper.
        if bundle.manifest.precision != "fp32":
            continue
        recipe = Path(training.recipe).stem
        report = _read_report(bundle, training)
        if recipe not in latest or latest[recipe].version < report.version:
            latest[recipe] = report
    return latest


def _read_report(bundle: Bundle, training: Training) -> BundleReport:
    path = bundle.path / _REPORT
    try:
        report = Report.from_json(path.read_text(encoding="utf-8"))
    except ValidationError as error:
        raise RunError(str(path), f"is no report: {error}", "Evaluate the run and export it again") from error
    return BundleReport(
        name=bundle.manifest.name,
        version=int(bundle.manifest.version),
        stages=report.stages[: report.stages.index(training.stage) + 1],
        data=training.data,
        report=report,
    )
