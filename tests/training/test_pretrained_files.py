"""The files of pretrained models: found by path, downloaded by name, and errors that say what to do."""

from pathlib import Path

import pytest

from tests.training.support.backbones import hub_of, save_image_backbone
from training.errors import BackboneError, HubUnreachable
from training.pretrained_files import find_pretrained, weight_files

CLOSED = "http://127.0.0.1:9"
"""An address that refuses connections."""


def test_a_path_starts_from_the_data_folder_and_comes_before_a_name_on_the_hub(tmp_path: Path) -> None:
    (tmp_path / "owner" / "model").mkdir(parents=True)
    assert find_pretrained("owner/model", tmp_path) == tmp_path / "owner" / "model"
    assert find_pretrained(str(tmp_path / "owner"), Path("/elsewhere")) == tmp_path / "owner"


def test_a_name_that_is_neither_path_nor_hub_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BackboneError, match=r"models/of/mine: is no file or folder \(seen from .*owner/model"):
        find_pretrained("models/of/mine", tmp_path)


def test_a_hub_that_cannot_be_reached_is_named_with_a_local_folder_as_the_remedy(
    hub_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", CLOSED)
    with pytest.raises(HubUnreachable, match=rf"owner/model: .*{CLOSED} cannot be reached.*Give a local folder"):
        find_pretrained("owner/model", tmp_path)


@pytest.mark.parametrize("variable", ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])
def test_nothing_is_downloaded_if_the_environment_forbids_it(
    variable: str, hub_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "1")
    with pytest.raises(HubUnreachable, match=f"owner/model: .*{variable} forbids"):
        find_pretrained("owner/model", tmp_path)


def test_a_model_of_the_hub_is_downloaded_once_without_files_that_are_not_needed(
    hub_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save_image_backbone(tmp_path / "model")
    (folder / "pytorch_model.bin").write_bytes(b"the same weights as a pickle")
    (folder / "modeling.py").write_text("raise SystemExit")
    with hub_of(folder) as address:
        monkeypatch.setenv("HF_ENDPOINT", address)
        found = find_pretrained("tests/tiny", tmp_path)
        assert {file.name for file in found.iterdir()} == {
            "config.json",
            "model.safetensors",
            "preprocessor_config.json",
        }
        assert weight_files(found)[0].read_bytes() == (folder / "model.safetensors").read_bytes()
        with pytest.raises(BackboneError, match="owner/other: is no file or folder, and no public model"):
            find_pretrained("owner/other", tmp_path)
    # The hub is closed now.
    assert find_pretrained("tests/tiny", tmp_path) == found
