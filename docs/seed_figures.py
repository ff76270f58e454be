"""Means and standard deviations over trainings of a recipe with different seeds, for the tables of docs/results.md."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

RESULTS = Path(__file__).parents[1] / "benchmarks/results"


@dataclass(frozen=True)
class SeedFigures:
    """The result of `python -m benchmarks seeds`.

    Attributes:
        errors: Stage -> classification errors in percent, one of each training.
        sets: Set -> stage -> score -> metric -> values in percent, one of each training.
    """

    errors: Mapping[str, Sequence[float]]
    sets: Mapping[str, Any]

    @classmethod
    def load(cls, recipe: str) -> "SeedFigures":
        """The figures of the trainings of `recipe`."""
        figures = json.loads((RESULTS / f"seeds-{recipe}.json").read_text(encoding="utf-8"))["figures"]
        return cls(figures["error_percent"], figures["sets"])

    def error(self, stage: str) -> str:
        """The classification error of a stage."""
        return _mean_and_deviation(self.errors[stage])

    def detection(self, metric: str, stage: str, score: str, sets: Sequence[str]) -> str:
        """A metric of a stage by a score, the mean over `sets`, which may have the names of means themselves."""
        columns = [self.sets[name][stage][score][metric] for name in sets]
        return _mean_and_deviation([fmean(training) for training in zip(*columns, strict=True)])


def _mean_and_deviation(values: Sequence[float]) -> str:
    return f"{fmean(values):.1f} ± {stdev(values):.1f}"
