"""The default backbone of a quick start: taken from the hub if it suits the data, else a small network."""

import csv
from pathlib import Path

import pytest

from tests.training.support.backbones import SIDE, hub_of, save_image_backbone
from tests.training.support.quick_starts import write_images
from tests.training.support.texts_on_disk import TOPICS, sentences
from training.commands.run import QuickStartOptions, resolve_run
from training.quick_start.default_backbone import IMAGE_BACKBONE, NO_BACKBONE, TEXT_BACKBONE, default_backbone
from training.recipe import Recipe

CLOSED = "http://127.0.0.1:9"
"""An address that refuses connections."""


def recipe_of(root: Path, backbone: str | None = None, size: str | None = None) -> Recipe:
    options = QuickStartOptions(root / "photos", root / "others", backbone, None, None, size)
    return resolve_run(None, [], None, options).recipe


def test_photographs_get_the_default_backbone_and_its_resolution(
    hub_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_images(tmp_path, size=64)
    with hub_of(save_image_backbone(tmp_path / "model"), IMAGE_BACKBONE) as address:
        monkeypatch.setenv("HF_ENDPOINT", address)
        recipe = recipe_of(tmp_path)
    assert recipe.backbone is not None
    assert recipe.backbone.backbone == IMAGE_BACKBONE
    assert recipe.input.kind == "image"
    assert recipe.input.height == SIDE
    assert f"backbone {IMAGE_BACKBONE}, the default" in " ".join(capsys.readouterr().err.split())


def test_without_the_hub_a_small_network_is_trained_and_the_message_says_what_that_costs(
    hub_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_images(tmp_path, size=64)
    monkeypatch.setenv("HF_ENDPOINT", CLOSED)
    assert recipe_of(tmp_path).backbone is None
    message = " ".join(capsys.readouterr().err.split())
    assert f"the hub {CLOSED} cannot be reached" in message
    assert "A small network is trained from scratch instead: on photographs of five kinds of flowers" in message
    assert "--backbone names another one" in message


@pytest.mark.parametrize(("side", "backbone", "size"), [(16, None, None), (64, NO_BACKBONE, None), (64, None, "32x32")])
def test_the_hub_is_not_asked_for_small_images_nor_against_the_options(
    side: int, backbone: str | None, size: str | None, hub_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_images(tmp_path, size=side)
    with hub_of(save_image_backbone(tmp_path / "model"), IMAGE_BACKBONE) as address:
        monkeypatch.setenv("HF_ENDPOINT", address)
        assert recipe_of(tmp_path, backbone, size).backbone is None
    assert not hub_cache.exists()


def test_texts_have_a_default_backbone_of_their_own_unless_there_are_very_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for n, named in (
        (100, f"no pretrained backbone: {TEXT_BACKBONE} is no file or folder"),
        (10_001, "would take long"),
    ):
        with (tmp_path / "mails.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["text", "label"])
            writer.writerows((text, TOPICS[i % 2]) for i, text in enumerate(sentences(TOPICS[0], n, 1)))
        name, message = default_backbone(tmp_path / "mails.csv")
        assert name is None
        assert named in message
