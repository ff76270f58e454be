"""Plots: score histograms, ROC curves and reliability diagrams, stages side by side."""

from collections.abc import Collection, Mapping
from pathlib import Path

import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.metrics import roc_auc_score, roc_curve

from bundle import SCORES
from training.evaluation.detection import Scores
from training.evaluation.probabilities import BIN_SIZE, reliability_bins
from training.evaluation.report import StageScores
from training.evaluation.stage_probabilities import stage_predictions

_INSIDE = "#3b4252"
_COLOURS = ("#d1495b", "#0077b6", "#edae49", "#2a9d8f", "#8d5a97", "#7f7f7f", "#b56576", "#457b9d")
_STYLE = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titleweight": "bold",
    "legend.frameon": False,
    "figure.dpi": 110,
}
_BINS = 60
_RELIABILITY_POINTS = 20
_INPUTS = {"in-distribution": "#0077b6", "mixture": "#d1495b"}


def plot_histograms(stages: Mapping[str, StageScores], score: str, path: Path) -> None:
    """Densities of the anomaly score, in-distribution (filled) against every set (lines), one panel a stage."""
    with matplotlib.style.context(_STYLE):
        figure, panels = _panels(len(stages))
        for axes, (stage, scores) in zip(panels, stages.items(), strict=True):
            inside = scores.inside[score]
            everything = np.concatenate([inside, *(outside[score] for outside in scores.outside.values())])
            low, high = np.quantile(everything, (0.001, 0.999)).tolist()
            edges = np.linspace(low, high, _BINS + 1).tolist()
            axes.hist(_clip(inside, edges), edges, weights=_shares(inside), color=_INSIDE, alpha=0.35, label="in-dist.")
            for colour, (name, outside) in zip(_cycle(len(scores.outside)), scores.outside.items(), strict=True):
                values = outside[score]
                axes.hist(
                    _clip(values, edges),
                    edges,
                    weights=_shares(values),
                    histtype="step",
                    color=colour,
                    lw=1.6,
                    label=name,
                )
            axes.set(title=stage, xlabel=f"anomaly by {SCORES[score].title}")
        panels[0].set_ylabel("share of inputs")
        panels[-1].legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
        _save(figure, path)


def plot_rocs(stages: Mapping[str, StageScores], score: str, path: Path) -> None:
    """ROC curves of every set, outliers positive, with the 95% TPR line, one panel a stage."""
    with matplotlib.style.context(_STYLE):
        figure, panels = _panels(len(stages))
        for axes, (stage, scores) in zip(panels, stages.items(), strict=True):
            inside = scores.inside[score]
            for colour, (name, outside) in zip(_cycle(len(scores.outside)), scores.outside.items(), strict=True):
                values = outside[score]
                truth = np.repeat([0, 1], [len(inside), len(values)])
                both = np.concatenate((inside, values))
                fpr, tpr, _ = roc_curve(truth, both)
                axes.plot(fpr, tpr, color=colour, lw=1.8, label=f"{name}  {100 * roc_auc_score(truth, both):.1f}")
            axes.axhline(0.95, color="#999999", lw=0.8, ls="--")
            axes.plot((0, 1), (0, 1), color="#cccccc", lw=0.8, ls=":")
            axes.set(title=stage, xlabel="false positive rate", xlim=(-0.01, 1), ylim=(0, 1.01))
            axes.legend(loc="lower right", title="AUROC")
        panels[0].set_ylabel("true positive rate")
        _save(figure, path)


def plot_reliability(stages: Mapping[str, StageScores], sets: Collection[str], seed: int, path: Path) -> None:
    """Accuracy against confidence in bins of equal count, one panel a stage: before temperature (dashed) and after.

    In-distribution test inputs alone, and their mixture with the out-of-distribution `sets`, rescaled, as reported.
    Stages without logits are left out; of those alone nothing is drawn.
    """
    classifiers = {stage: scores.logits for stage, scores in stages.items() if scores.logits is not None}
    if not classifiers:
        return
    with matplotlib.style.context(_STYLE):
        figure, panels = _panels(len(classifiers))
        for axes, (stage, logits) in zip(panels, classifiers.items(), strict=True):
            axes.plot((0, 1), (0, 1), color="#999999", lw=0.8, ls=":")
            for found in stage_predictions(logits, sets, seed=seed):
                # Fewer and larger bins than the errors are measured in: points that an eye can follow.
                size = max(BIN_SIZE, len(found.confidence) // _RELIABILITY_POINTS)
                bins = reliability_bins(found.confidence, found.correct, size)
                axes.plot(
                    bins.confidence,
                    bins.accuracy,
                    color=_INPUTS[found.inputs],
                    lw=1.6 if found.tuned else 1.0,
                    ls="-" if found.tuned else "--",
                    marker="o" if found.tuned else ".",
                    ms=4,
                    label=f"{found.inputs}, T = {found.temperature:.2f}",
                )
            axes.set(title=stage, xlabel="confidence", xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
            axes.legend(loc="upper left")
        panels[0].set_ylabel("share of right predictions")
        _save(figure, path)


def _panels(n: int) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(5.0 * n + 1.2, 4.0), layout="constrained")
    return figure, list(np.atleast_1d(figure.subplots(1, n, sharey=True)))


def _cycle(n: int) -> list[str]:
    return [_COLOURS[i % len(_COLOURS)] for i in range(n)]


def _clip(values: Scores, edges: list[float]) -> Scores:
    """What lies outside the axis is counted in its first and last bin."""
    return np.clip(values, edges[0], edges[-1])


def _shares(values: Scores) -> Scores:
    return np.full(len(values), 1 / len(values))


def _save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
