"""The run directory: holds a recipe's stages, calibrations and report, so that every step can be resumed."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from pydantic import AwareDatetime, BaseModel, ConfigDict

from training.errors import RunError
from training.recipe import Recipe, dump_yaml, load_recipe


class StageRecord(BaseModel):
    """The record of a finished stage: its schedule, duration, hardware and final loss."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    stage: str
    epochs: int
    seconds: float
    started: AwareDatetime
    hardware: str
    final_loss: float | None


@dataclass(frozen=True)
class Run:
    """A run directory and its recipe (the file `recipe.yaml` in it, with overrides applied)."""

    path: Path
    recipe: Recipe

    @classmethod
    def create(cls, path: Path, recipe: Recipe, *, overwrite: bool) -> Self:
        """Create or resume the run at `path`.

        Trained stages are kept if `recipe` trains them in the same way; it may add stages. Calibrations and the report
        are kept if the recipe is unchanged. With `overwrite`, everything of a previous run is deleted.

        Raises:
            RunError: The directory holds trained stages that `recipe` trains differently.
        """
        run = cls(path, recipe)
        # Compared only: nothing that it names is imported.
        previous = cls.open(path, allow_code=True).recipe if run.recipe_path.exists() and not overwrite else None
        if previous is not None:
            trained = [name for name in previous.stages if run.checkpoint_path(name).exists()]
            if changed := previous.changed_for(recipe, trained):
                reason = f"holds a run of a different recipe ({', '.join(changed)} changed)"
                raise RunError(str(path), reason, "Choose another --run directory, or give --overwrite to start again")
        path.mkdir(parents=True, exist_ok=True)
        if previous != recipe:
            outdated = [run.calibration_path, run.report_path]
            for folder in [*outdated, run.stages_path] if previous is None else outdated:
                shutil.rmtree(folder, ignore_errors=True)
            run.discard_unused_inputs()
            run.recipe_path.write_text(dump_yaml(recipe.model_dump(mode="json")), encoding="utf-8")
        return run

    @classmethod
    def open(cls, path: Path, *, allow_code: bool = False) -> Self:
        """Open the existing run at `path`.

        Args:
            path: The run directory.
            allow_code: Whether its recipe may name callables to import.

        Raises:
            RunError: There is none.
            RecipeError: Its recipe is invalid, or names a callable and `allow_code` is off.
        """
        if not (path / "recipe.yaml").exists():
            raise RunError(str(path), "is no run directory (recipe.yaml is missing)", "Start one with `fit RECIPE`")
        return cls(path, load_recipe(path / "recipe.yaml", allow_code=allow_code))

    def discard_unused_inputs(self) -> None:
        """Delete the tokenizer and the backbone unless a stage was trained with them: they may be of earlier data."""
        if not any(self.checkpoint_path(name).exists() for name in self.recipe.stages):
            self.tokenizer_path.unlink(missing_ok=True)
            self.backbone_path.unlink(missing_ok=True)
            shutil.rmtree(self.backbone_folder, ignore_errors=True)

    @property
    def recipe_path(self) -> Path:
        """The recipe with overrides applied."""
        return self.path / "recipe.yaml"

    @property
    def report_path(self) -> Path:
        """The directory of the evaluation report."""
        return self.path / "report"

    @property
    def calibration_path(self) -> Path:
        """The directory of every stage's calibration scores, temperature and statistics of features."""
        return self.path / "calibration"

    def temperature_path(self, stage: str) -> Path:
        """The file with the temperature of a stage's probabilities."""
        return self.calibration_path / f"{stage}.temperature"

    def statistics_path(self, stage: str) -> Path:
        """The file with the statistics of a stage's training features."""
        return self.calibration_path / f"{stage}.features.npz"

    def combination_path(self, stage: str) -> Path:
        """The file with the statistics that standardise the scores that a stage's score `combined` combines."""
        return self.calibration_path / f"{stage}.combination.npz"

    def references_path(self, stage: str) -> Path:
        """The file with the sources of the training examples in a stage's statistics."""
        return self.calibration_path / f"{stage}.references.json"

    @property
    def shortcuts_path(self) -> Path:
        """The file with the shortcut check of a quick start's data."""
        return self.path / "shortcuts.json"

    @property
    def data_path(self) -> Path:
        """The file with the fingerprints of the data sets."""
        return self.path / "data.json"

    @property
    def backbone_path(self) -> Path:
        """The graph of the run's frozen backbone, for recipes with one."""
        return self.path / "backbone.onnx"

    @property
    def backbone_folder(self) -> Path:
        """The pretrained weights of the run's fine-tuned backbone, for recipes with one."""
        return self.path / "backbone"

    @property
    def tokenizer_path(self) -> Path:
        """The tokenizer of a run on texts."""
        return self.path / "tokenizer.json"

    @property
    def stages_path(self) -> Path:
        """The directory of the trained stages, one sub-directory each."""
        return self.path / "stages"

    def stage_path(self, stage: str) -> Path:
        """The directory of a stage's checkpoint and logs."""
        return self.stages_path / stage

    def checkpoint_path(self, stage: str) -> Path:
        """The latest checkpoint of a stage."""
        return self.stage_path(stage) / "last.ckpt"

    def record_path(self, stage: str) -> Path:
        """The record of a stage; the file exists once the stage is finished."""
        return self.stage_path(stage) / "record.json"

    def record(self, stage: str) -> StageRecord:
        """The record of a finished stage; RunError if it is not finished."""
        path = self.record_path(stage)
        if not path.exists():
            raise RunError(str(self.path), f"stage '{stage}' is not finished", "Run `fit RECIPE --resume` first")
        return StageRecord.model_validate_json(path.read_text(encoding="utf-8"))
