"""The paper's own figures, and the recipes that repeat its experiments: `figures.yaml`, validated."""

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
    """What the paper reports without and with Outlier Exposure; `source` where it is not the paper's own table."""

    baseline: Figures
    exposed: Figures
    source: str | None = None


class Experiment(_Part):
    """A row: the in-distribution data, the name of the recipe that repeats it, and the paper's figures if known.

    `why` is a sentence that is shown where a bundle of that recipe does not beat its baseline on some set.
    """

    inside: str
    recipe: str
    paper: PaperFigures | None = None
    why: str | None = None

    @property
    def recipe_file(self) -> str | None:
        """The file name of the recipe in `training/recipes`, None while there is none."""
        path = _RECIPES / f"{self.recipe}.yaml"
        return path.name if path.exists() else None


class PaperTable(_Part):
    """A table of detection by `score` (of `bundle.SCORES`), or without one, of the calibration of probabilities."""

    title: str
    score: str | None = None
    experiments: tuple[Experiment, ...]


_Tables = TypeAdapter(tuple[PaperTable, ...])


def paper_tables() -> tuple[PaperTable, ...]:
    """The paper's tables in its order."""
    return _Tables.validate_python(yaml.safe_load(_FILE.read_text(encoding="utf-8")))
