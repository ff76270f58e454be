"""The definition of one score: its formula, its unit, and whether a larger value is more anomalous."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

Tensor: TypeAlias = Any
"""A `torch.Tensor`. Formulas call its methods and import nothing: the bundle does not depend on torch."""

ModelOutput = Literal[
    "logits",
    "confidence_logit",
    "features",
    "feature_center",
    "whitening",
    "class_means",
    "reference_features",
    "combined_anomalies",
    "anomaly_means",
    "anomaly_deviations",
    "pixel_bits",
    "character_bits",
    "word_bits",
    "uniform_nats",
    "count",
]
"""The names of the model outputs that a formula can take.

- `logits`: class logits `[..., K]`.
- `confidence_logit`: the logit `[N]` of the learned confidence b(x).
- `features`: the input `[N, D]` of the classifier's last linear layer, or the output of a pretrained backbone.
- `feature_center` `[D]`, `whitening` `[D, R]`, `class_means` `[K, R]`: statistics of training features, constants of
  the graph, for `mahalanobis`.
- `reference_features`: normalised features `[M, D]` of training examples, a constant of the graph, for `knn`.
- `combined_anomalies`: the anomalies `[N, S]` of the scores that `combined` combines.
- `anomaly_means`, `anomaly_deviations`: their means and standard deviations `[S]` over in-distribution examples,
  constants of the graph.
- `pixel_bits`: the bits `[N, H, W]` of each pixel of an image, all channels together.
- `character_bits`, `word_bits`: the bits `[N, L+1]` of each character or word of a text and of its end.
- `uniform_nats`: the cross entropy `[N, L+1]` of the uniform distribution with the prediction of each character or
  word, 0 where the bits of a text are not counted.
- `count`: the number of units of an input, by which a sum over its units is divided, a number or `[N]`.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """A score, from a model's outputs to an anomaly.

    A graph outputs a score's *value*, as its paper defines it. Thresholds and p-values are on its *anomaly*,
    `offset + sign * value`, where larger is more anomalous for every score.

    Attributes:
        name: the key in manifests, requests and metrics.
        title: the name for people.
        unit: the unit of the value.
        source: the paper that defines the score.
        offset: the anomaly of the value 0.
        sign: +1 if a larger value is more anomalous, -1 if it is less.
        formulas: the model outputs that a formula takes, in order -> the value `[N]` as a function of them, in
            operations that torch's ONNX exporters support and in which float32 is accurate: exported graphs are
            compared with float64. Sizes other than N are constants, `int(logits.shape[-1])` for example. A score with
            several formulas has one for each kind of model.
    """

    name: str
    title: str
    unit: str
    source: str
    offset: float
    sign: Literal[1, -1]
    formulas: Mapping[tuple[ModelOutput, ...], Callable[..., Tensor]]

    def computable_from(self, outputs: Collection[ModelOutput]) -> bool:
        """Whether a model with these `outputs` can compute the score."""
        return any(set(inputs) <= set(outputs) for inputs in self.formulas)

    def compute(self, outputs: Mapping[ModelOutput, Tensor]) -> Tensor:
        """The value `[N]` of a model's `outputs`; KeyError if no formula can be computed from them."""
        for inputs, formula in self.formulas.items():
            if set(inputs) <= set(outputs):
                return formula(*(outputs[name] for name in inputs))
        raise KeyError(f"{self.name} cannot be computed from {', '.join(outputs)}")

    def anomaly(self, value: ArrayLike) -> NDArray[np.float64]:
        """The anomaly of `value`, of the same shape: `offset + sign * value`."""
        return np.asarray(self.offset + self.sign * np.asarray(value, dtype=np.float64))

    def anomaly_of(self, value: float) -> float:
        """`anomaly` of a single number."""
        return self.offset + self.sign * value

    def value(self, anomaly: ArrayLike) -> NDArray[np.float64]:
        """The value with the anomaly `anomaly`, of the same shape: the inverse of `anomaly`."""
        return np.asarray(self.sign * (np.asarray(anomaly, dtype=np.float64) - self.offset))
