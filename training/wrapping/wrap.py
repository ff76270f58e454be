"""Wrap: turns an ONNX classifier into a calibrated bundle, without training, and compares it with its own logits."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from bundle import (
    LOGIT_SCORES,
    CalibrationSpec,
    Parity,
    ScoreOutput,
    false_flag_rate,
    save_calibrations,
    seal_bundle,
    sha256_file,
)
from datafiles import printable
from training.data import (
    BrokenInputs,
    DataLocations,
    Examples,
    Progress,
    Reader,
    StoredArray,
    all_problems,
    announce_left_out,
)
from training.errors import DataError, RecipeError
from training.evaluation import manifest_evaluation, tune_temperature
from training.export.attention import POOR_ON_TRANSFORMERS, has_attention, transformer_warning
from training.export.bundle_folder import atomic_folder, new_bundle_path
from training.export.onnx_graph import check_parity, run_graph
from training.models.score_heads import ClassifierHead
from training.recipe import Source
from training.scoring.batch_scoring import Outputs, scoring_order
from training.scoring.calibration import DEFAULT_ALPHA, attainable_alpha, calibrations_from
from training.wrapping.class_names import class_names, targets_among
from training.wrapping.dynamic_batch import with_dynamic_batch
from training.wrapping.evaluation import STAGE, EvaluationData, evaluate_wrapped
from training.wrapping.image_adapter import ImageOptions, image_adapter
from training.wrapping.input_adapter import InputAdapter
from training.wrapping.logits import require_logits
from training.wrapping.onnx_classifier import OnnxClassifier, load_classifier
from training.wrapping.score_head import reference_outputs
from training.wrapping.sessions import ClassifierLogits
from training.wrapping.text_adapter import TextAdapter, text_adapter
from training.wrapping.wrapped_graph import wrap_graph

_GRAPH, _CALIBRATION = "model.onnx", "calibration.npz"
_TOLERANCE = 1e-3
_MIN_CALIBRATION = 20
_BATCH_CHECK_ROWS = 5


@dataclass(frozen=True)
class WrapOptions:
    """The options of the command `wrap`, whose help explains each. Paths of sources are relative to `data_dir`."""

    model: Path
    logits: str | None
    calibration: Source
    name: str
    data_dir: Path
    models: Path = Path("models")
    version: int = 1
    description: str = ""
    image: ImageOptions = field(default_factory=ImageOptions)
    tokenizer: Path | None = None
    max_tokens: int | None = None
    labels: Sequence[str] | None = None
    test: Source | None = None
    ood: Mapping[str, Source] = field(default_factory=dict)
    alpha: float | None = None
    default_score: str = "msp"
    overwrite: bool = False
    skip_broken: bool = False


def wrap(options: WrapOptions, announce: Callable[[str], None], progress: Progress) -> Path:
    """Write the bundle.

    Args:
        options: the classifier, the data and the bundle.
        announce: gets a line for each guess and result.
        progress: gets the progress of loading and scoring.

    Returns:
        The bundle's folder.

    Raises:
        GraphError: if the classifier cannot be wrapped.
        DataError: if the data do not fit it.
        ParityError: if the bundle's graph does not compute the scores of the classifier's own logits.
        RecipeError: if the default score is not a score of logits.
        RunError: if the bundle exists already.
    """
    _check_options(options)
    path = new_bundle_path(options.models, options.name, str(options.version), overwrite=options.overwrite)
    classifier = load_classifier(options.model, options.logits)
    if options.default_score in POOR_ON_TRANSFORMERS and has_attention(classifier.model):
        announce(transformer_warning(options.default_score))
    adapter = _adapter(classifier, options, announce)
    reader = adapter.reader(DataLocations(data_dir=options.data_dir), skip_broken=options.skip_broken)
    _read_everything(reader, options, announce, progress)
    calibration = reader.load(options.calibration, name="calibration", progress=progress)
    alpha = _alpha(options.alpha, calibration, announce)
    compute_logits = ClassifierLogits(classifier, adapter)
    if isinstance(adapter, TextAdapter):
        compute_logits(StoredArray(adapter.longest_row))
    spread = np.linspace(0, len(calibration) - 1, _BATCH_CHECK_ROWS).astype(np.int64)
    dynamic = with_dynamic_batch(classifier, adapter, calibration.x[scoring_order(calibration.x)[spread]])

    def logits_of(examples: Examples) -> NDArray[np.float32]:
        return compute_logits(examples.x, lambda done, n: progress(f"logits: {examples.name}", done, n))

    logits = logits_of(calibration)
    require_logits(classifier.model, classifier.logits, logits, adapter.options)
    test = None if options.test is None else reader.load(options.test, name="in-distribution test", progress=progress)
    labels = class_names(options.labels, logits.shape[1], calibration, test)
    head = ClassifierHead(LOGIT_SCORES)
    with atomic_folder(path) as partial:
        graph = partial / _GRAPH
        onnx.save(wrap_graph(dynamic, adapter, head, logits.shape[1]), graph)
        outputs = run_graph(graph, calibration.x, adapter.prepare)
        expected = reference_outputs(head, logits)
        differences = check_parity(expected, outputs, _TOLERANCE, reference="the classifier's own logits")
        calibrations = calibrations_from(outputs, LOGIT_SCORES)
        save_calibrations(partial / _CALIBRATION, calibrations)
        reader.write_sample(options.test or options.calibration, partial)
        for file, source in adapter.files.items():
            shutil.copy(source, partial / file)
        origin = f"{options.model.name} (sha256 {sha256_file(options.model)}), logits '{classifier.logits}'"
        report = None
        if test is not None:
            ood = {name: reader.load(source, name=name, progress=progress) for name, source in options.ood.items()}
            temperature = _temperature(calibration, labels, logits)
            report = evaluate_wrapped(
                EvaluationData(test, targets_among(test, labels), ood, calibrations, temperature),
                lambda examples: (run_graph(graph, examples.x, adapter.prepare), logits_of(examples)),
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
                "scores": [ScoreOutput(name=name, output=name) for name in LOGIT_SCORES],
                "default_score": options.default_score,
                "model": _GRAPH,
                "precision": classifier.precision,
                "calibration": CalibrationSpec(
                    file=_CALIBRATION,
                    n=len(calibration),
                    source=f"calibration, {printable(Path(calibration.source).name)}{_left_out(calibration)}",
                    alpha=alpha,
                ),
                "evaluation": None if report is None else manifest_evaluation(report, STAGE),
                "parity": Parity(tolerance=_TOLERANCE, max_difference=differences, inputs=len(calibration)),
                "created": datetime.now(UTC).replace(microsecond=0),
            },
        )
    _announce_accuracy(outputs, calibration, labels, adapter.options, announce)
    return path


def _check_options(options: WrapOptions) -> None:
    if options.default_score not in LOGIT_SCORES:
        reason = f"'{options.default_score}' is unknown"
        raise RecipeError("--default-score", reason, f"Known: {', '.join(LOGIT_SCORES)}")
    if options.ood and options.test is None:
        raise DataError("--ood", "needs in-distribution inputs to be compared with", "Give a labelled set: --test")
    if options.test is not None and options.tokenizer is not None and not options.ood:
        remedy = "Give out-of-distribution texts: --ood NAME=PATH"
        raise DataError("--test", "has no out-of-distribution set to be compared with", remedy)


def _read_everything(reader: Reader, options: WrapOptions, announce: Callable[[str], None], progress: Progress) -> None:
    """Read every input of every set once, and announce those that are left out.

    Raises:
        BrokenInputs: if inputs cannot be read and are not to be left out; lists all of them.
    """
    sets = {"calibration": options.calibration, "in-distribution test": options.test, **options.ood}
    loads = (
        partial(reader.load, source, name=name, progress=progress)
        for name, source in sets.items()
        if source is not None
    )
    if problems := all_problems(loads):
        raise BrokenInputs(problems)
    announce_left_out(reader.left_out, announce)


def _left_out(examples: Examples) -> str:
    """The part of a description on inputs that are left out because they cannot be read; empty without any."""
    return f", {len(examples.left_out):,} broken inputs left out" if examples.left_out else ""


def _adapter(classifier: OnnxClassifier, options: WrapOptions, announce: Callable[[str], None]) -> InputAdapter:
    if options.tokenizer is not None:
        return text_adapter(classifier, options.tokenizer, max_tokens=options.max_tokens, announce=announce)
    return image_adapter(classifier, options.image, announce)


def _alpha(option: float | None, calibration: Examples, announce: Callable[[str], None]) -> float:
    n = len(calibration)
    if n < _MIN_CALIBRATION:
        raise DataError(calibration.source, f"holds {n} examples to calibrate with", f"Give {_MIN_CALIBRATION} or more")
    attainable = attainable_alpha(n)
    if option is not None and option * (n + 1) < 1:
        reason = f"{n} examples can flag nothing at alpha {option:g}"
        raise DataError(calibration.source, reason, f"Give more, or --alpha {attainable:g}")
    if option is None and attainable > DEFAULT_ALPHA:
        announce(f"alpha: {attainable:g}, the smallest at which {n} calibration examples can flag an input")
    alpha = attainable if option is None else option
    announce(str(false_flag_rate(n, alpha)))
    return alpha


def _temperature(calibration: Examples, labels: Sequence[str], logits: NDArray[np.float32]) -> float | None:
    """The temperature of the report's probabilities; None if the calibration data have no classes of the model."""
    try:
        return tune_temperature(logits, targets_among(calibration, labels))
    except DataError:
        return None


def _announce_accuracy(
    outputs: Outputs, calibration: Examples, labels: Sequence[str], options: str, announce: Callable[[str], None]
) -> None:
    """Announce the accuracy on the calibration data: wrong preprocessing or class names make it low."""
    try:
        accuracy = float(np.mean(outputs["prediction"] == targets_among(calibration, labels)))
    except DataError:
        return
    announce(
        f"the model is right about {accuracy:.1%} of the calibration data; if it should be better, check {options}, "
        "and --labels"
    )
