"""Checks the preprocessing of a classifier on a few labelled inputs, and suggests a better one."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.data import Examples, Reader, StoredArray
from training.errors import DataError, GraphError
from training.recipe import Source
from training.wrapping.class_names import targets_among
from training.wrapping.input_adapter import InputAdapter
from training.wrapping.onnx_classifier import OnnxClassifier
from training.wrapping.sessions import ClassifierSession

_INPUTS = 64
_POOR = 0.75
"""Below this accuracy, other kinds of preprocessing are tried."""
_CLEARLY_BETTER = 0.1
"""The gain in accuracy from which another preprocessing is suggested: of 64 inputs, more than chance."""


@dataclass(frozen=True)
class SampleInputs:
    """A few calibration inputs, evenly spread over the set.

    Attributes:
        rows: the inputs `[M, ...]`, prepared for a classifier.
        labelled: the inputs with their classes, if they have any.
    """

    rows: NDArray[np.generic]
    labelled: Examples

    @classmethod
    def load(cls, source: Source, reader: Reader) -> "SampleInputs":
        """The sample of `source`; `reader` decodes only its inputs. Those that it leaves out as broken are missing."""
        limit = _INPUTS if source.limit is None else min(source.limit, _INPUTS)
        examples = reader.load(source.model_copy(update={"limit": limit}), name="calibration")
        return cls(np.asarray(examples.x[np.arange(len(examples), dtype=np.int64)]), examples)


def announce_accuracy(
    classifier: OnnxClassifier,
    adapter: InputAdapter,
    sample: SampleInputs,
    names: Sequence[str],
    alternatives: Mapping[str, Callable[[], tuple[InputAdapter, SampleInputs]]],
    announce: Callable[[str], None],
) -> None:
    """Announce the accuracy on the sample; if it is poor, try the `alternatives` and suggest the best.

    Args:
        classifier: the classifier.
        adapter: converts inputs to the classifier's.
        sample: the sample.
        names: the class names.
        alternatives: for each preset, a function that prepares the sample with it.
        announce: gets the lines.
    """
    try:
        targets = targets_among(sample.labelled, names, by_order=True)
    except DataError as error:
        announce(f"accuracy: could not be checked, because {error.subject} {error.reason}")
        return

    def accuracy_of(other: InputAdapter, inputs: SampleInputs) -> float:
        logits = ClassifierSession(classifier, other)(StoredArray(inputs.rows)).logits
        return float(np.mean(logits.argmax(axis=1) == targets))

    accuracy = accuracy_of(adapter, sample)
    announce(f"accuracy: {accuracy:.1%} on {len(targets)} calibration inputs")
    if accuracy >= _POOR or not alternatives:
        return
    results: dict[str, float] = {}
    for name, prepare in alternatives.items():
        # A preset may not fit the graph, for example its number of channels.
        with suppress(GraphError, DataError):
            results[name] = accuracy_of(*prepare())
    best = max(results, key=lambda name: results[name], default=None)
    tried = ", ".join(f"{name} {result:.1%}" for name, result in results.items())
    if best is not None and results[best] >= accuracy + _CLEARLY_BETTER:
        announce(f"warning: the preprocessing seems wrong; --preprocess {best} gives {results[best]:.1%} ({tried})")
    else:
        announce(f"no other preprocessing is clearly better ({tried}); check {adapter.options}, and --labels")
