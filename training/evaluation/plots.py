"""Plots of a report: score histograms, ROC curves and reliability diagrams, one panel per stage."""

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
from training.evaluation.stage_evaluation import StageScores
from training.evaluation.stage_probabilities import stage_predictions

_IN_DIST_COLOUR = "#3b4252"
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
_INPUT_COLOURS = {"in-distribution": "#0077b6", "mixture": "#d1495b"}


def plot_histograms(stages: Mapping[str, StageScores], score: str, path: Path) -> None:
    """Plot histograms of the anomaly score: in-distribution (filled) and every out-of-distribution set (lines)."""
    with matplotlib.style.context(_STYLE):
        figure, panels = _panels(len(stages))
        for axes, (stage, scores) in zip(panels, stages.items(), strict=True):
            in_dist = scores.in_dist[score]
            all_values = np.concatenate([in_dist, *(ood[score] for ood in scores.ood.values())])
            low, high = np.quantile(all_values, (0.001, 0.999)).tolist()
            edges = np.linspace(low, high, _BINS + 1).tolist()
            axes.hist(
                _clip(in_dist, edges),
                edges,
                weights=_shares(in_dist),
                color=_IN_DIST_COLOUR,
                alpha=0.35,
                label="in-dist.",
            )
            for colour, (name, ood) in zip(_cycle(len(scores.ood)), scores.ood.items(), strict=True):
                values = ood[score]
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
    """Plot the ROC curve of every out-of-distribution set, outliers positive, with the line of 95% TPR."""
    with matplotlib.style.context(_STYLE):
        figure, panels = _panels(len(stages))
        for axes, (stage, scores) in zip(panels, stages.items(), strict=True):
            in_dist = scores.in_dist[score]
            for colour, (name, ood) in zip(_cycle(len(scores.ood)), scores.ood.items(), strict=True):
                truth = np.repeat([0, 1], [len(in_dist), len(ood[score])])
                values = np.concatenate((in_dist, ood[score]))
                fpr, tpr, _ = roc_curve(truth, values)
                axes.plot(fpr, tpr, color=colour, lw=1.8, label=f"{name}  {100 * roc_auc_score(truth, values):.1f}")
            axes.axhline(0.95, color="#999999", lw=0.8, ls="--")
            axes.plot((0, 1), (0, 1), color="#cccccc", lw=0.8, ls=":")
            axes.set(title=stage, xlabel="false positive rate", xlim=(-0.01, 1), ylim=(0, 1.01))
            axes.legend(loc="lower right", title="AUROC")
        panels[0].set_ylabel("true positive rate")
        _save(figure, path)


def plot_reliability(stages: Mapping[str, StageScores], sets: Collection[str], seed: int, path: Path) -> None:
    """Plot accuracy against confidence in bins of equal size, without (dashed) and with temperature.

    The curves are those of the in-distribution test set and of the mixture with the out-of-distribution `sets`, with
    rescaled confidences as in the report. Stages without logits have no panel; without any panel no file is written.
    """
    classifiers = {stage: scores.logits for stage, scores in stages.items() if scores.logits is not None}
    if not classifiers:
        return
    with matplotlib.style.context(_STYLE):
        figure, panels = _panels(len(classifiers))
        for axes, (stage, logits) in zip(panels, classifiers.items(), strict=True):
            axes.plot((0, 1), (0, 1), color="#999999", lw=0.8, ls=":")
            for predictions in stage_predictions(logits, sets, seed=seed):
                # Fewer and larger bins than for the calibration errors, so that the curves are readable.
                size = max(BIN_SIZE, len(predictions.confidence) // _RELIABILITY_POINTS)
                bins = reliability_bins(predictions.confidence, predictions.correct, size)
                emphasised = predictions.with_temperature
                axes.plot(
                    bins.confidence,
                    bins.accuracy,
                    color=_INPUT_COLOURS[predictions.inputs],
                    lw=1.6 if emphasised else 1.0,
                    ls="-" if emphasised else "--",
                    marker="o" if emphasised else ".",
                    ms=4,
                    label=f"{predictions.inputs}, T = {predictions.temperature:.2f}",
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
    """`values` clipped to the axis: the first and the last bin count the values beyond it."""
    return np.clip(values, edges[0], edges[-1])


def _shares(values: Scores) -> Scores:
    return np.full(len(values), 1 / len(values))


def _save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
