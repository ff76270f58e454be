"""The paper's figures and the recipes that repeat its experiments, read from `figures.yaml`."""

from pathlib import Path
from typing import Annotated

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

_FILE = Path(__file__).with_name("figures.yaml")
_RECIPES = Path(__file__).parent.parent / "recipes"

_Percent = Annotated[float, Field(ge=0, le=100)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Figures(_Part):
    """Detection metrics in percent, mean over the test sets."""

    fpr95: _Percent
    auroc: _Percent
    aupr: _Percent


class PaperFigures(_Part):
    """The paper's figures without and with Outlier Exposure.

    `source` is given if the figures are not from the paper's own table.
    """

    baseline: Figures
    exposed: Figures
    source: str | None = None


class Experiment(_Part):
    """A row of a table.

    Attributes:
        in_dist: The in-distribution data.
        recipe: The name of the recipe that repeats the experiment.
        paper: The paper's figures, if it has any.
        why: A sentence shown if a bundle of that recipe does not beat its baseline on every set.
    """

    in_dist: str
    recipe: str
    paper: PaperFigures | None = None
    why: str | None = None

    @property
    def recipe_file(self) -> str | None:
        """The file name of the recipe in `training/recipes`, None if it does not exist."""
        path = _RECIPES / f"{self.recipe}.yaml"
        return path.name if path.exists() else None


class PaperTable(_Part):
    """A table of detection by `score` (a name in `bundle.SCORES`), or of calibration of probabilities without one."""

    title: str
    score: str | None = None
    experiments: tuple[Experiment, ...]


_Tables = TypeAdapter(tuple[PaperTable, ...])


def paper_tables() -> tuple[PaperTable, ...]:
    """The paper's tables in its order."""
    return _Tables.validate_python(yaml.safe_load(_FILE.read_text(encoding="utf-8")))
