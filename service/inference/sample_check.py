"""Compares the scores of a bundle's sample input with those at its export: thresholds are worth nothing for others."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import structlog

from bundle import Bundle
from service.inference.onnx_session import EngineError, open_session
from service.inference.providers import CPU, Provider
from service.inputs.modality import Array, Limits, Modality, arrays_of
from service.inputs.payloads import Payload, Text

log = structlog.stdlib.get_logger(__name__)

# Between kinds of CPU and between CPU and GPU, float32 differs by some 1e-5.
_FLOAT32 = {"rel_tol": 1e-3, "abs_tol": 1e-3}
# In half precision, TF32 and int8 some thousandths are usual.
_LOW_PRECISION = {"rel_tol": 0.02, "abs_tol": 0.01}

_UNLIMITED = Limits(max_pixels=10**9, max_text_chars=10**7)


def check_sample(
    bundle: Bundle, modality: Modality, compute: Callable[[Sequence[Array]], Mapping[str, Array]], provider: Provider
) -> None:
    """Check the scores that `compute` gives the bundle's sample.

    The reference is the manifest's `sample`. Bundles of earlier versions have none; on a GPU they are compared with the
    CPU. Without a sample there is nothing to check.

    Raises:
        EngineError: A score of a float32 or float16 graph differs. For int8, whose kernels differ between CPUs, the
            log has a warning.
    """
    item = _sample(bundle, modality)
    if item is None:
        return
    reference = _reference(bundle, modality, item, provider)
    if reference is None:
        return
    precise = bundle.manifest.precision == "fp32" and not (provider.first != CPU and provider.cuda.tf32)
    tolerance = _FLOAT32 if precise else _LOW_PRECISION
    outputs = compute([item])
    for name, expected in reference.items():
        actual = float(outputs[name][0])
        if math.isclose(actual, expected, **tolerance):
            continue
        reason = (
            f"the sample's {name} is {actual:g} on {provider.first} and {expected:g} at the export (tolerance "
            f"{tolerance['rel_tol']:g} relative, {tolerance['abs_tol']:g} absolute)"
        )
        if bundle.manifest.precision == "int8":
            log.warning("other scores than at the export", model=bundle.manifest.name, reason=reason)
            return
        raise EngineError(bundle, reason, "Another provider, driver or library version may compute it right")


def _sample(bundle: Bundle, modality: Modality) -> Array | None:
    files = (name for name in sorted(bundle.manifest.files) if _is_sample(name, modality))
    name = next(files, None) if bundle.manifest.sample is None else bundle.manifest.sample.file
    if name is None:
        return None
    path = bundle.path / name
    payload: Payload = path.read_bytes()
    if modality.pixel_shape is None:
        payload = Text(path.read_text(encoding="utf-8-sig", errors="replace").strip())
    return next(iter(arrays_of([modality.prepare(payload, _UNLIMITED)])), None)


def _is_sample(name: str, modality: Modality) -> bool:
    return Path(name).stem == "sample" and Path(name).suffix in modality.sample_types


def _reference(bundle: Bundle, modality: Modality, item: Array, provider: Provider) -> Mapping[str, float] | None:
    if bundle.manifest.sample is not None:
        return bundle.manifest.sample.scores
    if provider.first == CPU:
        return None
    session = open_session(bundle, Provider(CPU, required=True), 1)
    scores = bundle.manifest.scores
    rows = session.run([score.output for score in scores], modality.feed([item]))
    return {score.name: float(row[0]) for score, row in zip(scores, rows, strict=True)}
