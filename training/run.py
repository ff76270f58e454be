"""The run directory: a recipe's stages, scores and report, kept so that any step can be taken up again."""

import shutil
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
    final_loss: float | None


@dataclass(frozen=True)
class Run:
    """A run directory and the recipe it follows (`recipe.yaml` inside it, overrides applied)."""

    path: Path
    recipe: Recipe

    @classmethod
    def create(cls, path: Path, recipe: Recipe, *, overwrite: bool) -> Self:
        """Start the run at `path`, or take it up.

        With `overwrite` nothing of an earlier run remains. Without it, stages that were trained are kept if `recipe`
        trains them alike (it may add others); calibration and report are kept if it is the same recipe. RunError when
        it trains something else.
        """
        run = cls(path, recipe)
        earlier = cls.open(path).recipe if run.recipe_path.exists() and not overwrite else None
        if earlier is not None:
            trained = [name for name in earlier.stages if run.checkpoint_path(name).exists()]
            if changed := earlier.changed_for(recipe, trained):
                reason = f"holds a run of a different recipe ({', '.join(changed)} changed)"
                raise RunError(str(path), reason, "Choose another --run directory, or give --overwrite to start anew")
        path.mkdir(parents=True, exist_ok=True)
        if earlier != recipe:
            outdated = [run.calibration_path, run.report_path]
            for folder in [*outdated, run.stages_path] if earlier is None else outdated:
                shutil.rmtree(folder, ignore_errors=True)
            if earlier is None:
                run.tokenizer_path.unlink(missing_ok=True)
            text = yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
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

    def temperature_path(self, stage: str) -> Path:
        """The temperature of a stage's probabilities."""
        return self.calibration_path / f"{stage}.temperature"

    @property
    def data_path(self) -> Path:
        """Fingerprints of the data that was trained on."""
        return self.path / "data.json"

    @property
    def tokenizer_path(self) -> Path:
        """The tokenizer of a run on texts."""
        return self.path / "tokenizer.json"

    @property
    def stages_path(self) -> Path:
        """What was trained: a directory for each stage."""
        return self.path / "stages"

    def stage_path(self, stage: str) -> Path:
        """The directory of a stage's checkpoint and logs."""
        return self.stages_path / stage

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
