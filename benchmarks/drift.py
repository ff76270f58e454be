"""The drift alarm on real images: quiet on a test set of the model's own kind, alarmed by a small share of others.

Each order is a service's life: a long quiet time, then traffic with a share of outliers. Test images are drawn without
repetition for the check of quietness, and with repetition for the long lives, because there are not enough of them.
"""

from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from pyarrow import parquet
from rich.progress import track

from benchmarks.results import report
from bundle import SCORES, Bundle, ImageInput, decode_image, load_bundle
from service.scoring.drift import DriftEvidence

MODEL = Path("models/cifar10-oe/1")
ALARM = 3.0
BATCH = 50


def measure(data: Path, share: float, orders: int, history: int) -> None:
    """Print and keep how often quiet traffic raises an alarm, and after how many inputs a share of outliers does."""
    bundle = load_bundle(MODEL)
    images, signs = (anomalies(bundle, data / name / "test.parquet") for name in ("cifar10", "gtsrb"))
    quiet = [evidence_of(bundle, np.random.default_rng(order).permutation(images)) for order in range(orders)]
    lives = [life(bundle, images, signs, share, history, order) for order in range(orders)]
    delays = [delay for _, delay in lives]
    strong = [life(bundle, images, signs, 0.1, 0, order)[1] for order in range(orders)]
    figures: dict[str, Any] = {
        "orders": orders,
        "in-distribution images": len(images),
        "outliers": len(signs),
        "largest evidence over the test images, any order": max(quiet),
        "false alarms over the test images": sum(each >= ALARM for each in quiet),
        "quiet inputs before the outliers": history,
        "false alarms in them": sum(alarmed for alarmed, _ in lives),
        "share of outliers": share,
        "inputs until the alarm, median": median(delays),
        "inputs until the alarm, 90th percentile": float(np.quantile(delays, 0.9)),
        "inputs until the alarm, most": max(delays),
        "inputs until the alarm at a share of 0.1 from the start, median": median(strong),
        "inputs until the alarm at a share of 0.1 from the start, 90th percentile": float(np.quantile(strong, 0.9)),
    }
    report("drift-cifar10-oe", figures, ("onnxruntime", "numpy", "pillow"))


def anomalies(bundle: Bundle, file: Path) -> NDArray[np.float64]:
    """The default score's anomalies `[N]` of the images in a parquet file of encoded images."""
    spec = bundle.manifest.input
    if not isinstance(spec, ImageInput):
        raise SystemExit(f"{bundle.path} takes no images")
    score = bundle.manifest.default_score
    output = next(each.output for each in bundle.manifest.scores if each.name == score)
    session = onnxruntime.InferenceSession(bundle.model_path, providers=["CPUExecutionProvider"])
    encoded = [row["bytes"] for row in parquet.read_table(file)["image"].to_pylist()]
    values = [
        session.run(
            [output], {"images": np.stack([decode_image(each, spec) for each in encoded[start : start + BATCH]])}
        )
        for start in track(range(0, len(encoded), BATCH), description=f"scoring {file.parent.name}")
    ]
    return np.asarray(SCORES[score].anomaly(np.concatenate([value for (value,) in values])), np.float64)


def evidence_of(bundle: Bundle, traffic: NDArray[np.float64]) -> float:
    """The evidence after all of `traffic`."""
    drift = fresh(bundle)
    for anomaly in traffic.tolist():
        drift.update(anomaly)
    return drift.log10


def life(
    bundle: Bundle, images: NDArray[np.float64], signs: NDArray[np.float64], share: float, history: int, seed: int
) -> tuple[bool, int]:
    """Whether there was an alarm in `history` quiet inputs, and how many inputs it took after them."""
    rng = np.random.default_rng(seed)
    drift = fresh(bundle)
    for anomaly in rng.choice(images, history).tolist():
        drift.update(anomaly)
    alarmed, count = drift.log10 >= ALARM, 0
    while drift.log10 < ALARM:
        drift.update(float(rng.choice(signs if rng.random() < share else images)))
        count += 1
        if count > 1_000_000:
            raise SystemExit(f"no alarm within {count} inputs")
    return alarmed, count


def fresh(bundle: Bundle) -> DriftEvidence:
    """The evidence of a service that has just started."""
    return DriftEvidence(bundle.calibrations[bundle.manifest.default_score])
