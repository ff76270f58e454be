"""Score heads: every score of a classifier's logits as torch computes it, inside the exported graph."""

from collections.abc import Callable, Mapping, Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from training.errors import RecipeError

SCORE_HEADS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "msp": lambda logits: logits.softmax(dim=1).amax(dim=1),
    "max_logit": lambda logits: logits.amax(dim=1),
    "energy": lambda logits: -logits.logsumexp(dim=1),
    "entropy": lambda logits: -(logits.softmax(dim=1) * F.log_softmax(logits, dim=1)).sum(dim=1),
    "kl_uniform": lambda logits: -F.log_softmax(logits, dim=1).mean(dim=1),
}
"""Name in `bundle.SCORES` -> value `[N]` of logits `[N, K]`, in the units of that table."""


class ScoredClassifier(nn.Module):
    """A classifier with its scores: the graph that a bundle holds.

    Outputs, in the order of `output_names`: each score float32 `[N]`, the predicted class int64 `[N]` and its
    probability float32 `[N]`.
    """

    def __init__(self, classifier: nn.Module, scores: Sequence[str]) -> None:
        super().__init__()
        missing = [name for name in scores if name not in SCORE_HEADS]
        if missing:
            reason = f"{', '.join(missing)} cannot be computed from a classifier's logits"
            raise RecipeError("export.scores", reason, f"Choose among {', '.join(SCORE_HEADS)}")
        self.classifier = classifier
        self.scores = tuple(scores)
        self.output_names = (*self.scores, "prediction", "probability")

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Scores and prediction of uint8 images `[N, H, W, C]`."""
        logits = self.classifier(images).float()
        probability, prediction = logits.softmax(dim=1).max(dim=1)
        return (*(SCORE_HEADS[name](logits) for name in self.scores), prediction, probability)
