"""Quick starts of tests: images on disk, the command `run`, and the report of its bundle."""

from pathlib import Path

from PIL import Image
from typer.testing import CliRunner

from bundle import Bundle
from tests.training.support.datasets_on_disk import LABELS, checkers, stripes
from training.commands.app import app
from training.evaluation import Report


def write_images(root: Path, n: int = 140, size: int = 16) -> Path:
    """Write `photos/<class>/*.png` and `others/*.png` in `root`."""
    for i, (image, label) in enumerate(zip(*stripes(n, seed=1, size=size), strict=True)):
        folder = root / "photos" / LABELS[label]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{i}.png")
    (root / "others").mkdir()
    for i, image in enumerate(checkers(80, seed=2, size=size)):
        Image.fromarray(image).save(root / "others" / f"{i}.png")
    return root


def run(root: Path, *arguments: str) -> str:
    """Run the command and return its output; its errors are raised."""
    folders = ["--run", str(root / "run"), "--models", str(root / "models")]
    # No test depends on the hub: small networks are trained unless a backbone is given.
    environment = {"OOD_CACHE": str(root / "cache"), "COLUMNS": "200", "HF_HUB_OFFLINE": "1"}
    done = CliRunner().invoke(app, ["run", *arguments, *folders], env=environment)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.output


def read_report(bundle: Bundle) -> Report:
    return Report.from_json((bundle.path / "report" / "report.json").read_text(encoding="utf-8"))
