"""Wrap: any ONNX classifier becomes a bundle, calibrated and held against its own logits, without retraining."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from bundle import Calibration, CalibrationSpec, Parity, ScoreOutput, save_calibrations, seal_bundle, sha256_file
from training.data import DataLocations, Examples, Progress, StoredArray
from training.errors import DataError, RecipeError
from training.evaluation import manifest_evaluation, tune_temperature
from training.export.bundle_folder import atomic_folder, bundle_place
from training.export.onnx_graph import check_parity, run_graph
from training.recipe import Source
from training.scoring.alpha import attainable_alpha
from training.scoring.calibrate import anomalies
from training.scoring.score import Outputs, scoring_order
from training.wrapping import (
    SCORE_NAMES,
    STAGE,
    Evaluated,
    InputAdapter,
    Layout,
    Original,
    OriginalLogits,
    Resize,
    TextAdapter,
    class_names,
    evaluate_wrapped,
    image_adapter,
    load_original,
    reference_scores,
    require_logits,
    targets_among,
    text_adapter,
    with_dynamic_batch,
    wrap_graph,
)

_GRAPH, _CALIBRATION = "model.onnx", "calibration.npz"
_TOLERANCE = 1e-3
_FEWEST = 20
_PROVED_ON = 5


@dataclass(frozen=True)
class WrapOptions:
    """What to wrap and how; paths of sources are relative to `data_dir`. The command's help explains each."""

    model: Path
    logits: str | None
    calibration: Source
    name: str
    data_dir: Path
    models: Path = Path("models")
    version: int = 1
    description: str = ""
    layout: Layout | None = None
    size: tuple[int, int] | None = None
    mean: Sequence[float] = ()
    std: Sequence[float] = ()
    scale: float = 1.0
    resize: Resize = "bilinear"
    tokenizer: Path | None = None
    max_tokens: int | None = None
    labels: Sequence[str] | None = None
    test: Source | None = None
    ood: Mapping[str, Source] = field(default_factory=dict)
    alpha: float | None = None
    default_score: str = "msp"
    overwrite: bool = False


def wrap(options: WrapOptions, announce: Callable[[str], None], progress: Progress) -> Path:
    """Write the bundle and return its folder.

    Raises GraphError, DataError, ParityError when the graph, the data or the result is not what it must be.
    """
    if options.default_score not in SCORE_NAMES:
        raise RecipeError(
            "--default-score", f"'{options.default_score}' is unknown", f"Known: {', '.join(SCORE_NAMES)}"
        )
    if options.ood and options.test is None:
        raise DataError("--ood", "needs in-distribution inputs to be told from", "Give a labelled set: --test")
    path = bundle_place(options.models, options.name, str(options.version), overwrite=options.overwrite)
    if options.test is not None and options.tokenizer is not None and not options.ood:
        raise DataError("--test", "has nothing to be told from", "Give out-of-distribution texts: --ood NAME=PATH")
    original = load_original(options.model, options.logits)
    adapter = _adapter(original, options, announce)
    reader = adapter.reader(DataLocations(data_dir=options.data_dir))
    calibration = reader.load(options.calibration, name="calibration", progress=progress)
    alpha = _alpha(options.alpha, calibration, announce)
    logits_of = OriginalLogits(original, adapter)
    if isinstance(adapter, TextAdapter):
        logits_of(StoredArray(adapter.longest_row))
    spread = np.linspace(0, len(calibration) - 1, _PROVED_ON).astype(np.int64)
    dynamic = with_dynamic_batch(original, adapter, calibration.x[scoring_order(calibration.x)[spread]])

    def logits_for(examples: Examples) -> NDArray[np.float32]:
        return logits_of(examples.x, lambda done, n: progress(f"logits: {examples.name}", done, n))

    logits = logits_for(calibration)
    require_logits(original, logits, adapter.options)
    test = None if options.test is None else reader.load(options.test, name="in-distribution test", progress=progress)
    labels = class_names(options.labels, logits.shape[1], calibration, test)
    with atomic_folder(path) as partial:
        graph = partial / _GRAPH
        onnx.save(wrap_graph(dynamic, adapter), graph)
        outputs = run_graph(graph, calibration.x, adapter.prepare)
        differences = check_parity(reference_scores(logits), outputs, _TOLERANCE, reference="the original's logits")
        calibrations = {
            name: Calibration.from_scores(values) for name, values in anomalies(outputs, SCORE_NAMES).items()
        }
        save_calibrations(partial / _CALIBRATION, calibrations)
        reader.write_sample(options.test or options.calibration, partial)
        for file, source in adapter.files.items():
            shutil.copy(source, partial / file)
        origin = f"{options.model.name} (sha256 {sha256_file(options.model)}), logits '{original.logits}'"
        report = None
        if test is not None:
            report = evaluate_wrapped(
                Evaluated(test, targets_among(test, labels), calibrations, _temperature(calibration, labels, logits)),
                {name: reader.load(source, name=name, progress=progress) for name, source in options.ood.items()},
                lambda examples: (run_graph(graph, examples.x, adapter.prepare), logits_for(examples)),
                alpha=alpha,
                default_score=options.default_score,
                title=f"Evaluation of {options.name}",
                origin=origin,
                folder=partial / "report",
            )
        seal_bundle(
            partial,
            {
                "name": options.name,
                "version": path.name,
                "description": f"{options.description} Wrapped from {origin}, not trained here.".strip(),
                "modality": adapter.spec.kind,
                "task": "classification",
                "input": adapter.spec,
                "labels": list(labels),
                "scores": [ScoreOutput(name=name, output=name) for name in SCORE_NAMES],
                "default_score": options.default_score,
                "model": _GRAPH,
                "precision": original.precision,
                "calibration": CalibrationSpec(
                    file=_CALIBRATION, n=len(calibration), source=_shown(calibration), alpha=alpha
                ),
                "evaluation": None if report is None else manifest_evaluation(report, STAGE),
                "parity": Parity(tolerance=_TOLERANCE, max_difference=differences, inputs=len(calibration)),
                "created": datetime.now(UTC).replace(microsecond=0),
            },
        )
    _report_accuracy(outputs, calibration, labels, adapter.options, announce)
    return path


def _adapter(original: Original, options: WrapOptions, announce: Callable[[str], None]) -> InputAdapter:
    if options.tokenizer is not None:
        return text_adapter(original, options.tokenizer, max_tokens=options.max_tokens, announce=announce)
    return image_adapter(
        original,
        layout=options.layout,
        size=options.size,
        mean=options.mean,
        std=options.std,
        scale=options.scale,
        resize=options.resize,
        announce=announce,
    )


def _alpha(wanted: float | None, calibration: Examples, announce: Callable[[str], None]) -> float:
    n = len(calibration)
    if n < _FEWEST:
        raise DataError(calibration.source, f"holds {n} examples to calibrate with", f"Give {_FEWEST} or more")
    attainable = attainable_alpha(n)
    if wanted is not None and wanted * (n + 1) < 1:
        reason = f"{n} examples can flag nothing at alpha {wanted:g}"
        raise DataError(calibration.source, reason, f"Give more, or --alpha {attainable:g}")
    if wanted is None and attainable > attainable_alpha(10**6):
        announce(f"alpha: {attainable:g}, the least that {n} calibration examples can flag anything at")
    return attainable if wanted is None else wanted


def _temperature(calibration: Examples, labels: Sequence[str], logits: NDArray[np.float32]) -> float | None:
    """The temperature of the report's probabilities, None where the calibration data's classes are not known."""
    try:
        return tune_temperature(logits, targets_among(calibration, labels))
    except DataError:
        return None


def _report_accuracy(
    outputs: Outputs, calibration: Examples, labels: Sequence[str], given: str, announce: Callable[[str], None]
) -> None:
    """A wrong normalisation, layout, tokenizer or order of classes shows here first."""
    try:
        right = float(np.mean(outputs["prediction"] == targets_among(calibration, labels)))
    except DataError:
        return
    announce(
        f"the model is right about {right:.1%} of the calibration data; if it should be better, check {given}, and "
        "--labels"
    )


def _shown(examples: Examples) -> str:
    return f"calibration, {Path(examples.source).name}"
