"""The run directory: a recipe's stages, scores and report, kept so that any step can be taken up again."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import yaml
from pydantic import AwareDatetime, BaseModel, ConfigDict

from training.errors import RunError
from training.recipe import Recipe, load_recipe


class StageRecord(BaseModel):
    """What is known of a finished stage."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    stage: str
    epochs: int
    seconds: float
    started: AwareDatetime
    hardware: str
    final_loss: float


@dataclass(frozen=True)
class Run:
    """A run directory and the recipe it follows (`recipe.yaml` inside it, overrides applied)."""

    path: Path
    recipe: Recipe

    @classmethod
    def create(cls, path: Path, recipe: Recipe, *, overwrite: bool) -> Self:
        """Start or take up the run at `path`; RunError when it holds a run of another recipe."""
        run = cls(path, recipe)
        text = yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
        if run.recipe_path.exists() and run.recipe_path.read_text(encoding="utf-8") != text and not overwrite:
            remedy = "Choose another --run directory, or give --overwrite to start anew"
            raise RunError(str(path), "holds a run of a different recipe", remedy)
        path.mkdir(parents=True, exist_ok=True)
        if overwrite:
            for stage in recipe.stages:
                run.record_path(stage).unlink(missing_ok=True)
                run.checkpoint_path(stage).unlink(missing_ok=True)
        run.recipe_path.write_text(text, encoding="utf-8")
        return run

    @classmethod
    def open(cls, path: Path) -> Self:
        """The existing run at `path`."""
        if not (path / "recipe.yaml").exists():
            raise RunError(str(path), "is no run directory (recipe.yaml is missing)", "Start one with `fit RECIPE`")
        return cls(path, load_recipe(path / "recipe.yaml"))

    @property
    def recipe_path(self) -> Path:
        """The resolved recipe."""
        return self.path / "recipe.yaml"

    @property
    def report_path(self) -> Path:
        """The evaluation report's directory."""
        return self.path / "report"

    @property
    def calibration_path(self) -> Path:
        """Sorted calibration scores of every stage."""
        return self.path / "calibration"

    def stage_path(self, stage: str) -> Path:
        """The directory of a stage's checkpoint and logs."""
        return self.path / "stages" / stage

    def checkpoint_path(self, stage: str) -> Path:
        """The newest checkpoint of a stage."""
        return self.stage_path(stage) / "last.ckpt"

    def record_path(self, stage: str) -> Path:
        """The record that exists once a stage is finished."""
        return self.stage_path(stage) / "record.json"

    def record(self, stage: str) -> StageRecord:
        """The record of a finished stage; RunError when it is not finished."""
        path = self.record_path(stage)
        if not path.exists():
            raise RunError(str(self.path), f"stage '{stage}' is not finished", "Run `fit RECIPE --resume` first")
        return StageRecord.model_validate_json(path.read_text(encoding="utf-8"))
