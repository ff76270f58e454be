"""Wrap: turns an ONNX classifier into a calibrated bundle, without training, and compares it with its own logits."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto

from bundle import (
    COMBINED,
    FEATURE_SCORES,
    CalibrationSpec,
    EvidenceSpec,
    ModelTensor,
    NeighboursSpec,
    Parity,
    ScoreOutput,
    TensorDatatype,
    is_reserved_output,
    save_calibrations,
    save_references,
    seal_bundle,
)
from datafiles import printable
from training.data import DataLocations, Examples, Progress, StoredArray
from training.errors import DataError, GraphError, RecipeError
from training.evaluation import DefaultScore, manifest_evaluation, tune_temperature
from training.export.attention import POOR_ON_TRANSFORMERS, has_attention, transformer_warning
from training.export.bundle_export import REFERENCES
from training.export.bundle_folder import atomic_folder, new_bundle_path
from training.export.graph_evidence import add_evidence
from training.export.onnx_graph import check_parity, run_graph
from training.export.sample_scores import sample_scores
from training.models.combination import fit_combination
from training.models.feature_statistics import Statistics, fit_statistics
from training.models.neighbours import DISTANCES, NEIGHBOURS
from training.models.score_heads import ClassifierHead
from training.onnx_graphs import digest_of, opset_of, with_opset
from training.scoring.batch_scoring import scoring_order
from training.scoring.calibration import anomalies, calibrations_from
from training.scoring.features import references_of
from training.wrapping.accuracy_check import SampleInputs, announce_accuracy
from training.wrapping.class_names import class_names, targets_among
from training.wrapping.classifier_search import FoundClassifier, find_classifier, require_equal, require_finite
from training.wrapping.data import WrapData, load_data
from training.wrapping.dynamic_batch import with_dynamic_batch
from training.wrapping.evaluation import STAGE, EvaluationData, evaluate_wrapped
from training.wrapping.image_adapter import ImageAdapter, ImageOptions, image_adapter
from training.wrapping.image_preprocessing import PRESETS
from training.wrapping.input_adapter import InputAdapter
from training.wrapping.model_files import ModelFiles, read_model_files
from training.wrapping.onnx_classifier import OnnxClassifier, OwnOutput, graph_inputs, read_model
from training.wrapping.options import WrapOptions, check_options
from training.wrapping.score_head import reference_outputs
from training.wrapping.sessions import ClassifierSession, ClassifierValues
from training.wrapping.text_adapter import MIN_OPSET, takes_texts, text_adapter
from training.wrapping.wrapped_graph import wrap_graph

_GRAPH, _CALIBRATION = "model.onnx", "calibration.npz"
_TOLERANCE = 1e-3
_DEFAULT_SCORE = "msp"
_BATCH_CHECK_ROWS = 5
_EVIDENCE_ROWS = 8
_TEXT_OPSET = 13
_DATATYPES: Mapping[int, TensorDatatype] = {
    TensorProto.BOOL: "BOOL",
    TensorProto.UINT8: "UINT8",
    TensorProto.UINT16: "UINT16",
    TensorProto.UINT32: "UINT32",
    TensorProto.UINT64: "UINT64",
    TensorProto.INT8: "INT8",
    TensorProto.INT16: "INT16",
    TensorProto.INT32: "INT32",
    TensorProto.INT64: "INT64",
    TensorProto.FLOAT16: "FP16",
    TensorProto.FLOAT: "FP32",
    TensorProto.DOUBLE: "FP64",
    TensorProto.STRING: "BYTES",
}
"""The datatype of the Open Inference Protocol for each type of ONNX."""


def wrap(options: WrapOptions, announce: Callable[[str], None], progress: Progress) -> Path:
    """Wrap an ONNX classifier: write its bundle.

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
    check_options(options)
    announce = _without_repeats(announce)
    model, files = read_model(options.model), read_model_files(options.model)
    found = _find(model, options, files, announce)
    adapter = found.adapter
    path = new_bundle_path(options.models, options.name, str(options.version), overwrite=options.overwrite)
    if options.default_score in POOR_ON_TRANSFORMERS and has_attention(model):
        announce(transformer_warning(options.default_score))
    locations = DataLocations(data_dir=options.data_dir)
    data = load_data(adapter, options, locations, announce, progress)
    reader, calibration, test = data.reader, data.calibration, data.test
    sample = SampleInputs.load(options.calibration, reader)
    sample_values = ClassifierSession(found.classifier, adapter)(StoredArray(sample.rows)).logits
    classifier = found.resolve(sample_values, announce)
    scores = _scores(options, classifier)
    named = [sample.labelled] if test is None else [sample.labelled, test]
    labels = class_names(options.labels, files.labels, found.num_classes, named, announce)
    announce_accuracy(classifier, adapter, sample, labels, _alternatives(model, found, options, locations), announce)
    spread = np.linspace(0, len(calibration) - 1, _BATCH_CHECK_ROWS).astype(np.int64)
    dynamic = with_dynamic_batch(classifier, adapter, calibration.x[scoring_order(calibration.x)[spread]])
    session = ClassifierSession(classifier, adapter)

    def values_of(examples: Examples) -> ClassifierValues:
        return session(examples.x, lambda done, n: progress(f"logits: {examples.name}", done, n))

    def finite_values_of(examples: Examples) -> ClassifierValues:
        values = values_of(examples)
        for tensor, array in values.named(classifier):
            require_finite(array, tensor, examples.name, adapter.options)
        return values

    values = finite_values_of(calibration)
    head = _score_head(options, scores, data, finite_values_of)
    with atomic_folder(path) as partial:
        graph = partial / _GRAPH
        own_outputs, evidence = _write_graph(graph, dynamic, adapter, head, values.logits.shape[1], calibration)
        outputs = run_graph(graph, calibration.x, adapter.prepare, outputs=head.output_names)
        differences = check_parity(
            reference_outputs(head, *values),
            outputs,
            _TOLERANCE,
            reference="the classifier's own logits",
            tolerances={COMBINED.name: head.combination.tolerance(_TOLERANCE)} if head.combination else {},
        )
        calibrations = calibrations_from(outputs, scores)
        save_calibrations(partial / _CALIBRATION, calibrations)
        reader.write_sample(options.test or options.calibration, partial)
        for file, source in adapter.files.items():
            shutil.copy(source, partial / file)
        origin = f"{options.model.name} (sha256 {digest_of(options.model).hex()}), logits '{found.head.tensor}'"
        default_score = _default_score(options)
        report = None
        if test is not None:
            sources = {**options.ood, **options.validation}
            sets = {name: reader.load(source, name=name, progress=progress) for name, source in sources.items()}
            temperature = _temperature(calibration, labels, values.logits)
            report = evaluate_wrapped(
                EvaluationData(
                    test, targets_among(test, labels), sets, calibrations, temperature, tuple(options.validation)
                ),
                lambda examples: (
                    run_graph(graph, examples.x, adapter.prepare, outputs=head.output_names),
                    values_of(examples).logits,
                ),
                alpha=data.alpha,
                default_score=default_score,
                title=f"Evaluation of {options.name}",
                origin=origin,
                folder=partial / "report",
                announce=announce,
            )
            default_score = DefaultScore(report.default_score, report.default_score_reason)
        assert default_score is not None, "validation sets are refused without a test set"
        announce(f"default score: {default_score.name} ({default_score.reason})")
        seal_bundle(
            partial,
            {
                "name": options.name,
                "version": path.name,
                "description": " ".join(
                    part
                    for part in (
                        options.description,
                        f"Wrapped from {origin}, not trained here.",
                        _describe_fit(classifier, data.fit),
                    )
                    if part
                ),
                "modality": adapter.spec.kind,
                "task": "classification",
                "input": adapter.spec,
                "labels": list(labels),
                "scores": [
                    ScoreOutput(name=name, output=name, combines=options.combine if name == COMBINED.name else ())
                    for name in scores
                ],
                "default_score": default_score.name,
                "default_score_reason": default_score.reason,
                "model": _GRAPH,
                "evidence": evidence,
                "neighbours": _neighbours(partial, head, data.fit),
                "model_outputs": _model_outputs(classifier.outputs, own_outputs),
                "precision": classifier.precision,
                "calibration": CalibrationSpec(
                    file=_CALIBRATION,
                    n=len(calibration),
                    source=f"calibration, {printable(Path(calibration.source).name)}{_left_out(data.held_out)}",
                    alpha=data.alpha,
                ),
                "evaluation": None if report is None else manifest_evaluation(report, STAGE),
                "parity": Parity(tolerance=_TOLERANCE, max_difference=differences, inputs=len(calibration)),
                "sample": sample_scores(partial, _GRAPH, adapter.spec, list(scores)),
                "created": datetime.now(UTC).replace(microsecond=0),
            },
        )
    return path


def _score_head(
    options: WrapOptions,
    scores: Sequence[str],
    data: WrapData,
    values_of: Callable[[Examples], ClassifierValues],
) -> ClassifierHead:
    """The head that computes `scores`, with the statistics of features and of combined scores."""
    statistics: Statistics = {}
    if data.fit is not None:
        features = values_of(data.fit).features
        assert features is not None, "the classifier was found with its features"
        statistics = fit_statistics(FEATURE_SCORES, features, data.fit.targets())
    combination = None
    if data.standardisation is not None:
        needed = statistics if set(options.combine) & set(FEATURE_SCORES) else {}
        members = ClassifierHead(options.combine, statistics=needed)
        outputs = reference_outputs(members, *values_of(data.standardisation))
        combination = fit_combination(anomalies(outputs, options.combine))
    return ClassifierHead(scores, statistics=statistics, combination=combination, neighbours=options.neighbours)


def _write_graph(
    path: Path,
    classifier: OnnxClassifier,
    adapter: InputAdapter,
    head: ClassifierHead,
    num_classes: int,
    calibration: Examples,
) -> tuple[Mapping[str, str], EvidenceSpec | None]:
    """Write the bundle's graph to `path`, with the evidence of positions if the logits are sums over positions.

    Returns:
        The outputs of the classifier itself by name, and the evidence.
    """
    model, own_outputs = wrap_graph(classifier, adapter, head, num_classes)
    evidence = None
    if adapter.spec.kind == "image":
        evidence = add_evidence(model, {"images": calibration.x[np.arange(_EVIDENCE_ROWS)]}, classifier.precision)
    onnx.save(model, path)
    return own_outputs, evidence


def _neighbours(folder: Path, head: ClassifierHead, fit: Examples | None) -> NeighboursSpec | None:
    """The outputs with the nearest training examples, whose sources are written to `folder`; None without them."""
    if not head.has_neighbours or fit is None:
        return None
    save_references(folder / REFERENCES, references_of(fit))
    return NeighboursSpec(output=NEIGHBOURS, distances=DISTANCES, file=REFERENCES)


def _default_score(options: WrapOptions) -> DefaultScore | None:
    """The default score that the options set; None if validation sets choose it."""
    if options.default_score is not None:
        return DefaultScore(options.default_score, "set by --default-score")
    if options.validation:
        return None
    return DefaultScore(_DEFAULT_SCORE, "the default without --validation")


def _scores(options: WrapOptions, classifier: OnnxClassifier) -> tuple[str, ...]:
    """The scores of the bundle.

    Raises:
        RecipeError: if an option names a score that cannot be computed.
    """
    scores = [*classifier.scores, *(() if options.fit is None else FEATURE_SCORES)]
    _require_computable("--combine", options.combine, scores)
    if options.combine:
        # After the scores that it combines, because the head computes scores in this order.
        scores.append(COMBINED.name)
    if options.default_score is not None:
        _require_computable("--default-score", [options.default_score], scores)
    return tuple(scores)


def _require_computable(option: str, names: Sequence[str], computable: Sequence[str]) -> None:
    if missing := [name for name in names if name not in computable]:
        reason = f"{missing[0]} cannot be computed from probabilities"
        raise RecipeError(option, reason, f"Known: {', '.join(computable)}")


def _describe_fit(classifier: OnnxClassifier, fit: Examples | None) -> str:
    """The part of the bundle's description on the data that the statistics of features come from; empty without any."""
    if fit is None:
        return ""
    source = f"{len(fit):,} examples of {printable(Path(fit.source).name)} (sha256 {fit.sha256})"
    return f"Statistics of the features '{classifier.features}' of {source}."


def _without_repeats(announce: Callable[[str], None]) -> Callable[[str], None]:
    """Announces each line once, though several heads of a graph may be tried."""
    known: set[str] = set()

    def announce_new(line: str) -> None:
        if line not in known:
            known.add(line)
            announce(line)

    return announce_new


def _left_out(examples: Examples) -> str:
    """The part of a description on inputs that are left out because they cannot be read; empty without any."""
    return f", {len(examples.left_out):,} broken inputs left out" if examples.left_out else ""


def _find(
    model: ModelProto, options: WrapOptions, files: ModelFiles, announce: Callable[[str], None]
) -> FoundClassifier:
    """The classifier in `model`, with the adapter for its inputs."""
    tokenizer = options.tokenizer or (files.tokenizer if takes_texts(graph_inputs(model)) else None)
    if tokenizer is None:
        return find_classifier(
            model,
            options.logits,
            lambda graph, inputs: image_adapter(graph, inputs, options.image, files.preprocessing, announce),
            announce,
            with_features=options.fit is not None,
            features=options.features,
        )
    if options.image != ImageOptions():
        raise DataError(str(tokenizer), "is for texts, the options of images are not", "Leave one out")
    source = model
    if 0 < opset_of(model) < MIN_OPSET:
        source = with_opset(model, _TEXT_OPSET)
    max_tokens = options.max_tokens or files.max_tokens
    found = find_classifier(
        source,
        options.logits,
        lambda _, inputs: text_adapter(inputs, tokenizer, max_tokens=max_tokens, announce=announce),
        announce,
        with_features=options.fit is not None,
        features=options.features,
    )
    if source is not model:
        require_equal(model, found)
        announce(f"opset: converted from {opset_of(model)} to {_TEXT_OPSET}; the logits are the same")
    return found


def _alternatives(
    model: ModelProto, found: FoundClassifier, options: WrapOptions, locations: DataLocations
) -> dict[str, Callable[[], tuple[InputAdapter, SampleInputs]]]:
    """For each preset that differs from the classifier's preprocessing, a function that prepares the sample with it."""
    adapter = found.adapter
    if not isinstance(adapter, ImageAdapter):
        return {}
    spec = adapter.spec
    layout, size = adapter.layout, (spec.height, spec.width)

    def prepare(name: str) -> tuple[InputAdapter, SampleInputs]:
        image = ImageOptions(preprocess=name, layout=None if layout == "flat" else layout, size=size)
        other = image_adapter(model, found.classifier.inputs, image, None, lambda _: None)
        if (other.spec, other.bgr) == (spec, adapter.bgr):
            raise GraphError("--preprocess", f"{name} is what the classifier has", "Try another one")
        reader = other.reader(locations, skip_broken=options.skip_broken)
        return other, SampleInputs.load(options.calibration, reader)

    return {name: partial(prepare, name) for name in PRESETS}


def _model_outputs(outputs: Sequence[OwnOutput], names: Mapping[str, str]) -> list[ModelTensor]:
    """The classifier's own outputs for the manifest; names that a bundle has itself get the prefix `model.`."""
    tensors: list[ModelTensor] = []
    for output in outputs:
        datatype = _DATATYPES.get(output.elem_type)
        if datatype is not None:
            name = output.name
            while is_reserved_output(name) or any(name == tensor.name for tensor in tensors):
                name = f"model.{name}"
            tensors.append(ModelTensor(name=name, output=names[output.name], datatype=datatype, shape=output.shape))
    return tensors


def _temperature(calibration: Examples, labels: Sequence[str], logits: NDArray[np.float32]) -> float | None:
    """The temperature of the report's probabilities; None if the calibration data have no classes of the model."""
    try:
        return tune_temperature(logits, targets_among(calibration, labels))
    except DataError:
        return None
