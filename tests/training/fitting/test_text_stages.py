"""Fitting on texts: a stage with batches of similar length resumes to the same weights."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.training.support.interrupted_inputs import InterruptedInputs
from tests.training.support.texts_on_disk import tiny_text_recipe, write_tiny_texts
from training.data import DataLocations, load_in_distribution, open_reader
from training.fitting.stages import fit_stages
from training.fitting.weights import load_model
from training.recipe import parse_recipe
from training.run import Run


def test_an_interrupted_run_on_texts_grouped_by_length_resumes_to_the_same_weights(tmp_path: Path) -> None:
    root = write_tiny_texts(tmp_path / "texts")
    raw = tiny_text_recipe()
    for stage in raw["stages"].values():
        stage["group_by_length"] = True
    recipe = parse_recipe(raw, "test")
    reader = open_reader(recipe, DataLocations(data_dir=root), root / "tokenizer.json")
    train = load_in_distribution(recipe, reader).train
    runs = {name: Run.create(tmp_path / name, recipe, overwrite=False) for name in ("whole", "interrupted")}
    for run in runs.values():
        shutil.copy(root / "tokenizer.json", run.tokenizer_path)
    outliers = train.rows(np.arange(60))
    # Two reads before training and eleven per epoch: the interruption is in the third epoch.
    inputs = replace(train, x=InterruptedInputs(train.x, reads_left=30))
    with pytest.raises(SystemExit):
        fit_stages(runs["interrupted"], inputs, outliers, resume=False, announce=lambda _: None)
    assert runs["interrupted"].checkpoint_path("baseline").exists()
    for run in runs.values():
        fit_stages(run, train, outliers, resume=True, announce=lambda _: None)
    whole, resumed = (load_model(run, "oe", 2).state_dict() for run in runs.values())
    for name, value in whole.items():
        torch.testing.assert_close(resumed[name], value, rtol=0, atol=0, msg=name)
