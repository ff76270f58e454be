"""Draws docs/images/calibration.png, the figure of the README, from a bundle and two images.

The histogram holds the calibration anomalies of `models/cifar10-oe/1`. The marked inputs are the bundle's own sample
(a CIFAR-10 test image) and a handwritten character from Omniglot (Lake, Salakhutdinov & Tenenbaum 2015, MIT license).
Run it from the repository's root: `python docs/calibration_figure.py`.
"""

from pathlib import Path

import matplotlib as mpl
import numpy as np
import onnxruntime
from matplotlib.axes import Axes
from matplotlib.offsetbox import AnnotationBbox, OffsetImage
from matplotlib.pyplot import close, subplots

from bundle import SCORES, Bundle, ImageInput, decode_image, load_bundle

BUNDLE = Path("models/cifar10-oe/1")
IMAGES = Path(__file__).with_name("images")
ALPHA = 0.01
CALIBRATION, FLAGGED, ACCEPTED = "#8a94a6", "#c0392b", "#1f7a4d"


def anomaly_of(bundle: Bundle, file: Path) -> float:
    """Anomaly of one image file by the bundle's default score."""
    spec, score = bundle.manifest.input, bundle.manifest.default_score
    assert isinstance(spec, ImageInput)
    output = next(entry.output for entry in bundle.manifest.scores if entry.name == score)
    session = onnxruntime.InferenceSession(bundle.model_path, providers=["CPUExecutionProvider"])
    pixels = decode_image(file.read_bytes(), spec)[None]
    (value,) = session.run([output], {session.get_inputs()[0].name: pixels})
    return float(SCORES[score].anomaly(np.asarray(value, np.float64))[0])


def mark(axes: Axes, file: Path, anomaly: float, p_value: float, name: str, position: tuple[float, float]) -> None:
    """Draw an image file at `position` (axes fractions) with an arrow to its anomaly, its p-value and its flag."""
    flagged = p_value <= ALPHA
    colour = FLAGGED if flagged else ACCEPTED
    picture = OffsetImage(np.asarray(mpl.image.imread(file)), zoom=1.6, cmap="gray")
    arrow = {"arrowstyle": "-|>", "color": colour, "lw": 1.8, "shrinkA": 0, "shrinkB": 0}
    frame = {"edgecolor": colour, "lw": 2, "boxstyle": "square,pad=0.1"}
    axes.add_artist(
        AnnotationBbox(
            picture,
            (anomaly, 1),
            xybox=position,
            boxcoords="axes fraction",
            bboxprops=frame,
            arrowprops=arrow,
            annotation_clip=False,
        )
    )
    text = f"{name}\np-value {p_value:.4f}: {'flagged' if flagged else 'not flagged'}"
    x, y = position
    axes.annotate(text, (x + 0.06, y), xycoords="axes fraction", va="center", color=colour, fontweight="bold")


def main() -> None:
    """Draw the figure."""
    bundle = load_bundle(BUNDLE)
    calibration = bundle.calibrations[bundle.manifest.default_score]
    threshold = calibration.threshold(ALPHA)
    assert threshold is not None
    with mpl.style.context({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False}):
        figure, axes = subplots(figsize=(9, 3.8), dpi=150)
        figure.subplots_adjust(left=0.08, right=0.98, bottom=0.14, top=0.72)
        axes.hist(calibration.anomaly, bins=60, range=(0, 0.95), color=CALIBRATION, log=True)
        axes.set(
            xlim=(0, 0.95),
            xlabel=f"anomaly (1 - maximum softmax probability) of {calibration.n:,} held-out CIFAR-10 images",
            ylabel="calibration inputs",
        )
        axes.axvline(threshold, ymax=0.8, color="black", ls="--")
        label = f"threshold at\nalpha = {ALPHA}"
        axes.annotate(label, (threshold, 200), xytext=(8, 0), textcoords="offset points")
        inputs = (
            (BUNDLE / "sample.png", "in-distribution input", (0.16, 1.15)),
            (IMAGES / "omniglot-character.jpg", "out-of-distribution input", (0.62, 1.15)),
        )
        for file, name, position in inputs:
            anomaly = anomaly_of(bundle, file)
            mark(axes, file, anomaly, float(calibration.p_value(np.array([anomaly]))[0]), name, position)
        figure.savefig(IMAGES / "calibration.png")
        close(figure)


if __name__ == "__main__":
    main()
