"""Score heads: every score of a classifier's prediction as torch computes it, inside the exported graph."""

from collections.abc import Callable, Mapping, Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from training.errors import RecipeError
from training.models.classifier import Classifier, Prediction
from training.models.model import Model

LOGIT_SCORES: Mapping[str, Callable[[Tensor], Tensor]] = {
    "msp": lambda logits: logits.softmax(dim=1).amax(dim=1),
    "max_logit": lambda logits: logits.amax(dim=1),
    "energy": lambda logits: -logits.logsumexp(dim=1),
    "entropy": lambda logits: -(logits.softmax(dim=1) * F.log_softmax(logits, dim=1)).sum(dim=1),
    "kl_uniform": lambda logits: -F.log_softmax(logits, dim=1).mean(dim=1),
}
"""Name in `bundle.SCORES` -> value `[N]` of logits `[N, K]`, in the units of that table."""

CONFIDENCE = "confidence"


class ScoredModel(nn.Module):
    """A model with its scores: the graph that a bundle holds.

    Outputs, in the order of `output_names`: each of `scores` float32 `[N]`, then what else the kind of model has.
    `parts` is the output with the bits of an input's parts, of a model that has likelihoods.
    """

    parts: str | None = None

    def __init__(self, model: Model, scores: Sequence[str], output_names: Sequence[str]) -> None:
        super().__init__()
        self.model = model
        self.scores = tuple(scores)
        self.output_names = tuple(output_names)


class ScoredClassifier(ScoredModel):
    """A classifier with its scores.

    Outputs, in the order of `output_names`: each score float32 `[N]`, the predicted class int64 `[N]` and its
    probability float32 `[N]`.
    """

    def __init__(self, classifier: Classifier, scores: Sequence[str]) -> None:
        known = [*LOGIT_SCORES, *([CONFIDENCE] if classifier.confidence_branch else [])]
        missing = [name for name in scores if name not in known]
        if missing:
            reason = f"{', '.join(missing)} cannot be computed from this classifier"
            raise RecipeError("export.scores", reason, f"Choose among {', '.join(known)}")
        super().__init__(classifier, scores, (*scores, "prediction", "probability"))

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Scores and prediction of what the classifier takes."""
        prediction: Prediction = self.model(*inputs).float()
        probability, predicted = prediction.logits.softmax(dim=1).max(dim=1)
        return (*(_score(name, prediction) for name in self.scores), predicted, probability)


def _score(name: str, prediction: Prediction) -> Tensor:
    if name == CONFIDENCE and prediction.confidence_logit is not None:
        return prediction.confidence_logit.sigmoid()
    return LOGIT_SCORES[name](prediction.logits)
