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
from onnx import ModelProto, TensorProto

from bundle import (
    LOGIT_SCORES,
    CalibrationSpec,
    ModelTensor,
    Parity,
    ScoreOutput,
    TensorDatatype,
    false_flag_rate,
    is_reserved_output,
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
from training.errors import DataError, GraphError, RecipeError
from training.evaluation import manifest_evaluation, tune_temperature
from training.export.attention import POOR_ON_TRANSFORMERS, has_attention, transformer_warning
from training.export.bundle_folder import atomic_folder, new_bundle_path
from training.export.onnx_graph import check_parity, run_graph
from training.export.sample_scores import sample_scores
from training.models.score_heads import ClassifierHead
from training.onnx_graphs import opset_of, with_opset
from training.recipe import Source
from training.scoring.batch_scoring import scoring_order
from training.scoring.calibration import DEFAULT_ALPHA, attainable_alpha, calibrations_from
from training.wrapping.accuracy_check import SampleInputs, announce_accuracy
from training.wrapping.class_names import class_names, targets_among
from training.wrapping.classifier_search import FoundClassifier, find_classifier, require_equal, require_finite
from training.wrapping.dynamic_batch import with_dynamic_batch
from training.wrapping.evaluation import STAGE, EvaluationData, evaluate_wrapped
from training.wrapping.image_adapter import ImageAdapter, ImageOptions, image_adapter
from training.wrapping.image_preprocessing import PRESETS
from training.wrapping.input_adapter import InputAdapter
from training.wrapping.model_files import ModelFiles, read_model_files
from training.wrapping.onnx_classifier import OwnOutput, graph_inputs, read_model
from training.wrapping.score_head import reference_outputs
from training.wrapping.sessions import ClassifierLogits
from training.wrapping.text_adapter import MIN_OPSET, takes_texts, text_adapter
from training.wrapping.wrapped_graph import wrap_graph

_GRAPH, _CALIBRATION = "model.onnx", "calibration.npz"
_TOLERANCE = 1e-3
_MIN_CALIBRATION = 20
_BATCH_CHECK_ROWS = 5
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
    announce = _without_repeats(announce)
    model, files = read_model(options.model), read_model_files(options.model)
    found = _find(model, options, files, announce)
    adapter = found.adapter
    path = new_bundle_path(options.models, options.name, str(options.version), overwrite=options.overwrite)
    if options.default_score in POOR_ON_TRANSFORMERS and has_attention(model):
        announce(transformer_warning(options.default_score))
    locations = DataLocations(data_dir=options.data_dir)
    reader = _checked_reader(adapter, options, locations, announce, progress)
    calibration = reader.load(options.calibration, name="calibration", progress=progress)
    alpha = _alpha(options.alpha, calibration, announce)
    sample = SampleInputs.load(options.calibration, reader)
    classifier = found.resolve(ClassifierLogits(found.classifier, adapter)(StoredArray(sample.rows)), announce)
    if options.default_score not in classifier.scores:
        reason = f"{options.default_score} cannot be computed from probabilities"
        raise RecipeError("--default-score", reason, f"Known: {', '.join(classifier.scores)}")
    if options.labels is not None:
        class_names(options.labels, (), found.num_classes, (), announce)
    test = None if options.test is None else reader.load(options.test, name="in-distribution test", progress=progress)
    named = [sample.labelled] if test is None else [sample.labelled, test]
    labels = class_names(options.labels, files.labels, found.num_classes, named, announce)
    alternatives = _alternatives(model, found, options, locations)
    announce_accuracy(classifier, adapter, sample, labels, alternatives, announce)
    spread = np.linspace(0, len(calibration) - 1, _BATCH_CHECK_ROWS).astype(np.int64)
    dynamic = with_dynamic_batch(classifier, adapter, calibration.x[scoring_order(calibration.x)[spread]])
    compute_logits = ClassifierLogits(classifier, adapter)

    def logits_of(examples: Examples) -> NDArray[np.float32]:
        return compute_logits(examples.x, lambda done, n: progress(f"logits: {examples.name}", done, n))

    logits = logits_of(calibration)
    require_finite(logits, found.head, adapter.options)
    head = ClassifierHead(classifier.scores)
    with atomic_folder(path) as partial:
        graph = partial / _GRAPH
        wrapped, own_outputs = wrap_graph(dynamic, adapter, head, logits.shape[1])
        onnx.save(wrapped, graph)
        outputs = run_graph(graph, calibration.x, adapter.prepare, outputs=head.output_names)
        expected = reference_outputs(head, logits)
        differences = check_parity(expected, outputs, _TOLERANCE, reference="the classifier's own logits")
        calibrations = calibrations_from(outputs, classifier.scores)
        save_calibrations(partial / _CALIBRATION, calibrations)
        reader.write_sample(options.test or options.calibration, partial)
        for file, source in adapter.files.items():
            shutil.copy(source, partial / file)
        origin = f"{options.model.name} (sha256 {sha256_file(options.model)}), logits '{found.head.tensor}'"
        report = None
        if test is not None:
            ood = {name: reader.load(source, name=name, progress=progress) for name, source in options.ood.items()}
            temperature = _temperature(calibration, labels, logits)
            report = evaluate_wrapped(
                EvaluationData(test, targets_among(test, labels), ood, calibrations, temperature),
                lambda examples: (
                    run_graph(graph, examples.x, adapter.prepare, outputs=head.output_names),
                    logits_of(examples),
                ),
                alpha=alpha,
                default_score=options.default_score,
                title=f"Evaluation of {options.name}",
                origin=origin,
                folder=partial / "report",
                announce=announce,
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
                "scores": [ScoreOutput(name=name, output=name) for name in classifier.scores],
                "default_score": options.default_score,
                "model": _GRAPH,
                "model_outputs": _model_outputs(classifier.outputs, own_outputs),
                "precision": classifier.precision,
                "calibration": CalibrationSpec(
                    file=_CALIBRATION,
                    n=len(calibration),
                    source=f"calibration, {printable(Path(calibration.source).name)}{_left_out(calibration)}",
                    alpha=alpha,
                ),
                "evaluation": None if report is None else manifest_evaluation(report, STAGE),
                "parity": Parity(tolerance=_TOLERANCE, max_difference=differences, inputs=len(calibration)),
                "sample": sample_scores(partial, _GRAPH, adapter.spec, list(classifier.scores)),
                "created": datetime.now(UTC).replace(microsecond=0),
            },
        )
    return path


def _without_repeats(announce: Callable[[str], None]) -> Callable[[str], None]:
    """Announces each line once, though several heads of a graph may be tried."""
    known: set[str] = set()

    def announce_new(line: str) -> None:
        if line not in known:
            known.add(line)
            announce(line)

    return announce_new


def _check_options(options: WrapOptions) -> None:
    if options.default_score not in LOGIT_SCORES:
        reason = f"'{options.default_score}' is unknown"
        raise RecipeError("--default-score", reason, f"Known: {', '.join(LOGIT_SCORES)}")
    if options.ood and options.test is None:
        raise DataError("--ood", "needs in-distribution inputs to be compared with", "Give a labelled set: --test")
    if options.test is not None and options.tokenizer is not None and not options.ood:
        remedy = "Give out-of-distribution texts: --ood NAME=PATH"
        raise DataError("--test", "has no out-of-distribution set to be compared with", remedy)


def _checked_reader(
    adapter: InputAdapter,
    options: WrapOptions,
    locations: DataLocations,
    announce: Callable[[str], None],
    progress: Progress,
) -> Reader:
    """A reader that has read every input of every set, and announces those that it leaves out.

    Raises:
        BrokenInputs: if inputs cannot be read and are not to be left out; lists all of them.
    """
    reader = adapter.reader(locations, skip_broken=options.skip_broken)
    sets = {"calibration": options.calibration, "in-distribution test": options.test, **options.ood}
    loads = (
        partial(reader.load, source, name=name, progress=progress)
        for name, source in sets.items()
        if source is not None
    )
    if problems := all_problems(loads):
        raise BrokenInputs(problems)
    announce_left_out(reader.left_out, announce)
    return reader


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


def _alpha(option: float | None, calibration: Examples, announce: Callable[[str], None]) -> float:
    n, source = len(calibration), calibration.source
    if n < _MIN_CALIBRATION:
        raise DataError(source, f"holds {n} examples to calibrate with", f"Give {_MIN_CALIBRATION} or more")
    attainable = attainable_alpha(n)
    if option is not None and option * (n + 1) < 1:
        reason = f"{n} examples can flag nothing at alpha {option:g}"
        raise DataError(source, reason, f"Give more, or --alpha {attainable:g}")
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
