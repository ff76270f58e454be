"""The drift alarm on real images: false alarms on in-distribution traffic, and the delay until outliers raise it.

Each simulated life of a service is in-distribution traffic, then traffic with a share of outliers. False alarms on the
test set are counted on images without repetition. The simulated lives are longer than the test set, so they draw images
with repetition.
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
MAX_DELAY = 1_000_000


def measure(data: Path, share: float, orders: int, history: int) -> None:
    """Report false alarms on in-distribution traffic, and the number of inputs until outliers raise an alarm.

    Args:
        data: A folder with `cifar10/test.parquet` and `gtsrb/test.parquet`.
        share: The share of outliers in the drifted traffic.
        orders: The number of random orders.
        history: The number of in-distribution inputs before the outliers.
    """
    bundle = load_bundle(MODEL)
    images, signs = (anomalies(bundle, data / name / "test.parquet") for name in ("cifar10", "gtsrb"))
    in_dist_evidence = [
        evidence_after(bundle, np.random.default_rng(order).permutation(images)) for order in range(orders)
    ]
    lives = [simulated_life(bundle, images, signs, share, history, order) for order in range(orders)]
    delays = [delay for _, delay in lives]
    delays_at_10_percent = [simulated_life(bundle, images, signs, 0.1, 0, order)[1] for order in range(orders)]
    figures: dict[str, Any] = {
        "orders": orders,
        "in_dist_images": len(images),
        "outliers": len(signs),
        "max_log10_evidence_on_test_images": max(in_dist_evidence),
        "false_alarms_on_test_images": sum(evidence >= ALARM for evidence in in_dist_evidence),
        "history_inputs": history,
        "false_alarms_in_history": sum(alarmed for alarmed, _ in lives),
        "outlier_share": share,
        "inputs_until_alarm_median": median(delays),
        "inputs_until_alarm_p90": float(np.quantile(delays, 0.9)),
        "inputs_until_alarm_max": max(delays),
        "inputs_until_alarm_at_10_percent_without_history_median": median(delays_at_10_percent),
        "inputs_until_alarm_at_10_percent_without_history_p90": float(np.quantile(delays_at_10_percent, 0.9)),
    }
    report("drift-cifar10-oe", figures, ("onnxruntime", "numpy", "pillow"))


def anomalies(bundle: Bundle, file: Path) -> NDArray[np.float64]:
    """The default score's anomalies `[N]` of the images in a parquet file of encoded images."""
    spec = bundle.manifest.input
    if not isinstance(spec, ImageInput):
        raise SystemExit(f"{bundle.path} takes no images")
    name = bundle.manifest.default_score
    output = next(score.output for score in bundle.manifest.scores if score.name == name)
    session = onnxruntime.InferenceSession(bundle.model_path, providers=["CPUExecutionProvider"])
    files = [row["bytes"] for row in parquet.read_table(file)["image"].to_pylist()]
    batches = [
        session.run([output], {"images": np.stack([decode_image(data, spec) for data in files[start : start + BATCH]])})
        for start in track(range(0, len(files), BATCH), description=f"scoring {file.parent.name}")
    ]
    return np.asarray(SCORES[name].anomaly(np.concatenate([values for (values,) in batches])), np.float64)


def evidence_after(bundle: Bundle, traffic: NDArray[np.float64]) -> float:
    """The evidence, as a power of ten, after all of `traffic`."""
    drift = new_evidence(bundle)
    for anomaly in traffic.tolist():
        drift.update(anomaly)
    return drift.log10


def simulated_life(
    bundle: Bundle, images: NDArray[np.float64], signs: NDArray[np.float64], share: float, history: int, seed: int
) -> tuple[bool, int]:
    """Whether `history` in-distribution inputs raise an alarm, and the number of drifted inputs until one is raised."""
    rng = np.random.default_rng(seed)
    drift = new_evidence(bundle)
    for anomaly in rng.choice(images, history).tolist():
        drift.update(anomaly)
    alarmed, count = drift.log10 >= ALARM, 0
    while drift.log10 < ALARM:
        drift.update(float(rng.choice(signs if rng.random() < share else images)))
        count += 1
        if count > MAX_DELAY:
            raise SystemExit(f"no alarm within {count} inputs")
    return alarmed, count


def new_evidence(bundle: Bundle) -> DriftEvidence:
    """The evidence of a service that has just started."""
    return DriftEvidence(bundle.calibrations[bundle.manifest.default_score])
