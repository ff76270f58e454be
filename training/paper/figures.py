"""The paper's figures and the recipes that repeat its experiments, read from `figures.yaml`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, NamedTuple

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

_FILE = Path(__file__).with_name("figures.yaml")
_RECIPES = Path(__file__).parent.parent / "recipes"

_Percent = Annotated[float, Field(ge=0, le=100)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Figures(NamedTuple):
    """Detection metrics in percent; the false positive rate is that at the table's recall."""

    fpr: _Percent
    auroc: _Percent
    aupr: _Percent


class Pair(_Part):
    """Figures without and with Outlier Exposure."""

    baseline: Figures
    exposed: Figures


class PaperFigures(_Part):
    """The paper's figures of an experiment.

    Attributes:
        mean: The means over the paper's test sets.
        sets: The name of a set in the recipe -> the figures of that set, from the logs of the authors' code.
        source: The origin of the means if they are not from the paper's own table.
    """

    mean: Pair
    sets: Mapping[str, Pair] = {}
    source: str | None = None


class Experiment(_Part):
    """An experiment of a table.

    Attributes:
        in_dist: The in-distribution data.
        recipe: The name of the recipe that repeats the experiment.
        paper: The paper's figures, if it has any.
        why: A sentence shown if a bundle of that recipe does not beat its baseline on every set.
        note: A difference from the paper's experiment, shown beside a bundle's figures.
    """

    in_dist: str
    recipe: str
    paper: PaperFigures | None = None
    why: str | None = None
    note: str | None = None

    @property
    def recipe_file(self) -> str | None:
        """The file name of the recipe in `training/recipes`, None if it does not exist."""
        path = _RECIPES / f"{self.recipe}.yaml"
        return path.name if path.exists() else None


class PaperTable(_Part):
    """A table of detection by `score` (a name in `bundle.SCORES`), or of calibration of probabilities without one.

    Attributes:
        title: The title.
        score: The score.
        recall: The recall, in 0..1, of the table's false positive rates.
        note: A difference from the paper that concerns the whole table.
        experiments: The experiments in their order.
    """

    title: str
    score: str | None = None
    recall: Annotated[float, Field(gt=0, le=1)] = 0.95
    note: str | None = None
    experiments: tuple[Experiment, ...]


_Tables = TypeAdapter(tuple[PaperTable, ...])


def paper_tables() -> tuple[PaperTable, ...]:
    """The paper's tables in its order."""
    return _Tables.validate_python(yaml.safe_load(_FILE.read_text(encoding="utf-8")))
