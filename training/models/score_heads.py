"""Score heads: the scores of `bundle.SCORES` as torch modules, for the graph of a trained or a wrapped classifier."""

from collections.abc import Collection, Sequence

import torch
from torch import Tensor, nn

from bundle import COMBINED, SCORES, ModelOutput
from training.errors import RecipeError
from training.models.classifier import Classifier, Prediction
from training.models.combination import Combination
from training.models.evidence import EvidenceLayers
from training.models.feature_statistics import Statistics
from training.models.features import predict_with_features
from training.models.model import Model
from training.models.neighbours import DISTANCES, NEIGHBOURS, nearest_references

EVIDENCE = "evidence"
"""The graph output with the evidence of each position for the predicted class."""


class ScoredModel(nn.Module):
    """A model with its scores: the graph that a bundle holds.

    Outputs, in the order of `output_names`: each of `scores` float32 `[N]`, then the further outputs of the kind of
    model. `parts` names the output with the bits of an input's parts; None for models without likelihoods.
    """

    parts: str | None = None

    def __init__(self, model: Model, scores: Sequence[str], output_names: Sequence[str]) -> None:
        super().__init__()
        self.model = model
        self.scores = tuple(scores)
        self.output_names = tuple(output_names)


class ClassifierHead(nn.Module):
    """Computes a classifier's scores and its prediction from its logits and, for some scores, its features.

    Outputs, in the order of `output_names`: each of `scores` `[N]`, the predicted class int64 `[N]` and its probability
    `[N]`, in the floating-point type of the logits; with `neighbours` those of `training.models.neighbours`.

    Args:
        scores: The names of the scores.
        confidence_branch: Whether the classifier has a learned confidence.
        statistics: The constants of scores that are computed from features; see `training.models.feature_statistics`.
        combination: The scores that `combined` combines, which stand before it in `scores`.
        neighbours: Whether to compute the nearest training examples, if `statistics` has any.

    Raises:
        RecipeError: if one of `scores` needs other outputs of the classifier or other statistics.
    """

    reference_features: Tensor

    def __init__(
        self,
        scores: Sequence[str],
        *,
        confidence_branch: bool = False,
        statistics: Statistics | None = None,
        combination: Combination | None = None,
        neighbours: bool = False,
    ) -> None:
        super().__init__()
        statistics = statistics or {}
        self.has_neighbours = neighbours and "reference_features" in statistics
        outputs: list[ModelOutput] = ["logits", "confidence_logit"] if confidence_branch else ["logits"]
        if statistics:
            outputs += ["features", *statistics]
        self.num_features = _num_features(statistics)
        self.combination = combination
        if combination is not None:
            statistics = {**statistics, **combination.statistics}
            outputs += ["combined_anomalies", *combination.statistics]
        require_scores(scores, outputs)
        self.scores = tuple(scores)
        neighbour_outputs = (NEIGHBOURS, DISTANCES) if self.has_neighbours else ()
        self.output_names = (*scores, "prediction", "probability", *neighbour_outputs)
        self._statistics = tuple(statistics)
        for name, value in statistics.items():
            self.register_buffer(name, value)

    def forward(
        self, logits: Tensor, confidence_logit: Tensor | None = None, features: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        """Scores and prediction.

        Args:
            logits: Class logits `[N, K]`.
            confidence_logit: The logits `[N]` of a confidence branch.
            features: The features `[N, D]`, for a head with statistics.
        """
        probability, predicted = logits.softmax(dim=1).max(dim=1)
        outputs: dict[ModelOutput, Tensor | None] = {"logits": logits, "confidence_logit": confidence_logit}
        outputs["features"] = features
        outputs |= {name: getattr(self, name).to(logits.dtype) for name in self._statistics}
        values: dict[str, Tensor] = {}
        for name in self.scores:
            if name == COMBINED.name and self.combination is not None:
                combined = self.combination.scores
                members = [SCORES[member].offset + SCORES[member].sign * values[member] for member in combined]
                outputs["combined_anomalies"] = torch.stack(members, dim=-1)
            values[name] = SCORES[name].compute(outputs)
        if not self.has_neighbours:
            return (*values.values(), predicted, probability)
        assert features is not None, "a head with statistics gets features"
        nearest = nearest_references(features, self.reference_features.to(features.dtype))
        return (*values.values(), predicted, probability, *nearest)


class ScoredClassifier(ScoredModel):
    """A classifier with its scores and prediction; see `ClassifierHead` for the outputs and errors.

    With `layers` there is one more output, `evidence` float32 `[N, H, W]`; see `training.models.evidence`.
    """

    def __init__(
        self,
        classifier: Classifier,
        scores: Sequence[str],
        statistics: Statistics | None = None,
        combination: Combination | None = None,
        *,
        neighbours: bool = False,
        layers: EvidenceLayers | None = None,
    ) -> None:
        head = ClassifierHead(
            scores,
            confidence_branch=classifier.confidence_branch,
            statistics=statistics,
            combination=combination,
            neighbours=neighbours,
        )
        super().__init__(classifier, scores, (*head.output_names, *([] if layers is None else [EVIDENCE])))
        self.head = head
        self._statistics = statistics
        self._layers = layers

    def with_evidence(self) -> "ScoredClassifier | None":
        """The classifier with evidence as a further output; None if it has no layers to compute it from."""
        assert isinstance(self.model, Classifier), "it was made of a classifier"
        layers = EvidenceLayers.of(self.model)
        if layers is None:
            return None
        return ScoredClassifier(
            self.model,
            self.scores,
            self._statistics,
            self.head.combination,
            neighbours=self.head.has_neighbours,
            layers=layers,
        )

    def bias(self, classes: int) -> list[float] | None:
        """The part of each class's logit that no position has; None without evidence."""
        return None if self._layers is None else self._layers.bias(classes)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Scores and prediction for the classifier's inputs."""
        predict = predict_with_features if self.head.num_features else _predict
        outputs: tuple[Tensor, ...]
        if self._layers is None:
            outputs = self.head(*predict(self.model, inputs).float())
            return outputs
        with self._layers.recorded_maps() as maps:
            outputs = self.head(*predict(self.model, inputs).float())
        predicted = outputs[self.head.output_names.index("prediction")]
        return (*outputs, self._layers.evidence(maps[0], predicted))


def _num_features(statistics: Statistics) -> int:
    """The number of features D that `statistics` belong to; 0 for none."""
    sizes = {int(statistics[name].shape[-1]) for name in ("feature_center", "reference_features") if name in statistics}
    return sizes.pop() if sizes else 0


def _predict(classifier: nn.Module, inputs: tuple[Tensor, ...]) -> Prediction:
    prediction: Prediction = classifier(*inputs)
    return prediction


def require_scores(scores: Sequence[str], outputs: Collection[ModelOutput]) -> None:
    """Check that a model with these `outputs` can compute each of `scores`.

    Raises:
        RecipeError: naming the scores that it cannot compute and those that it can.
    """
    computable = [name for name, score in SCORES.items() if score.computable_from(outputs)]
    if missing := [name for name in scores if name not in computable]:
        reason = f"{', '.join(missing)} cannot be computed from this model"
        raise RecipeError("export.scores", reason, f"Choose among {', '.join(computable)}")
