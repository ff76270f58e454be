import contextlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundle import (
    MANIFEST_NAME,
    BundleError,
    Calibration,
    CalibrationInvalid,
    FileCorrupt,
    FileMissing,
    ManifestInvalid,
    ManifestMissing,
    PathEscapes,
    SchemaTooNew,
    load_bundle,
    save_calibrations,
    seal_bundle,
    sha256_file,
)
from tests.support.tiny_bundle import TINY_SCORES, make_tiny_bundle

Edit = Callable[[dict[str, Any]], None]


@pytest.fixture
def folder(tiny_bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_bundle, tmp_path / "tiny" / "1"))


def edit_manifest(folder: Path, edit: Edit) -> None:
    fields = json.loads((folder / MANIFEST_NAME).read_text())
    edit(fields)
    (folder / MANIFEST_NAME).write_text(json.dumps(fields))


def refuse(folder: Path, kind: type[BundleError], where: str, *, verify: bool = True) -> BundleError:
    """Load `folder`, expecting an error of exactly `kind` at `where`, whose text has all its attributes."""
    with pytest.raises(BundleError) as caught:
        load_bundle(folder, verify=verify)
    error = caught.value
    assert type(error) is kind, error
    assert error.where == where
    for part in (str(error.path), error.where, error.reason, error.remedy):
        assert part
        assert part in str(error)
    return error


def test_a_sealed_bundle_loads(folder: Path) -> None:
    bundle = load_bundle(folder)
    assert bundle.path == folder.resolve()
    assert bundle.manifest.labels == ["red", "green", "blue"]
    assert bundle.model_path.is_file()
    assert list(bundle.calibrations) == list(TINY_SCORES)
    assert all(calibration.n == bundle.manifest.calibration.n for calibration in bundle.calibrations.values())


def test_the_manifest_lists_every_file_but_itself(folder: Path) -> None:
    (folder / "report").mkdir()
    (folder / "report" / "report.md").write_text("# Report")
    fields = json.loads((folder / MANIFEST_NAME).read_text())
    del fields["files"]
    sealed = seal_bundle(folder, fields)
    assert list(sealed.files) == ["calibration.npz", "model.onnx", "report/report.md"]
    assert sealed.files["model.onnx"] == sha256_file(folder / "model.onnx")
    assert load_bundle(folder).manifest == sealed


@pytest.mark.parametrize("name", ["model.onnx", "calibration.npz"])
@pytest.mark.parametrize("position", [0, -1])
def test_a_flipped_byte_is_refused(folder: Path, name: str, position: int) -> None:
    data = bytearray((folder / name).read_bytes())
    data[position] ^= 1
    (folder / name).write_bytes(data)
    assert "SHA-256" in refuse(folder, FileCorrupt, name).reason


def test_without_verification_a_change_of_the_model_is_accepted(folder: Path) -> None:
    with (folder / "model.onnx").open("ab") as file:
        file.write(b"x")
    assert load_bundle(folder, verify=False).manifest.name == "tiny"


@pytest.mark.parametrize("verify", [True, False])
@pytest.mark.parametrize("name", ["model.onnx", "calibration.npz"])
def test_a_missing_file_is_named(folder: Path, name: str, verify: bool) -> None:
    (folder / name).unlink()
    with pytest.raises(FileMissing, match=name):
        load_bundle(folder, verify=verify)


@pytest.mark.parametrize("verify", [True, False])
def test_a_folder_in_place_of_a_file_is_named(folder: Path, verify: bool) -> None:
    (folder / "model.onnx").unlink()
    (folder / "model.onnx").mkdir()
    refuse(folder, FileMissing, "model.onnx", verify=verify)


def test_a_folder_whose_manifest_is_not_complete_is_no_bundle(folder: Path) -> None:
    (folder / MANIFEST_NAME).rename(folder / f".{MANIFEST_NAME}.partial")
    refuse(folder, ManifestMissing, MANIFEST_NAME)


def test_a_half_copied_model_is_refused(folder: Path) -> None:
    data = (folder / "model.onnx").read_bytes()
    (folder / "model.onnx").write_bytes(data[: len(data) // 2])
    refuse(folder, FileCorrupt, "model.onnx")


def test_a_folder_that_does_not_exist_is_reported_as_such(tmp_path: Path) -> None:
    assert "does not exist" in refuse(tmp_path / "nowhere", ManifestMissing, MANIFEST_NAME).reason


def test_a_newer_schema_is_reported_before_its_unknown_fields(folder: Path) -> None:
    edit_manifest(folder, lambda fields: fields.update(schema_version=2, quantum=True))
    assert "Upgrade" in refuse(folder, SchemaTooNew, "schema_version").remedy


@pytest.mark.parametrize("text", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b"not json"])
def test_a_manifest_that_is_not_json_is_refused(folder: Path, text: bytes) -> None:
    (folder / MANIFEST_NAME).write_bytes(text)
    refuse(folder, ManifestInvalid, MANIFEST_NAME)


@pytest.mark.parametrize(
    ("edit", "where"),
    [
        (lambda fields: fields["calibration"].update(alpha=2), "calibration.alpha"),
        (lambda fields: fields["input"].update(height="8"), "input.height"),
        (lambda fields: fields.pop("labels"), "labels"),
        (lambda fields: fields.update(extra=1), "extra"),
        (lambda fields: fields.pop("schema_version"), "schema_version"),
        (lambda fields: fields.update(schema_version=True), "schema_version"),
        (lambda fields: fields.update(schema_version="1"), "schema_version"),
        (lambda fields: fields.update(default_score="bpp"), MANIFEST_NAME),
    ],
)
def test_a_wrong_field_is_named(folder: Path, edit: Edit, where: str) -> None:
    edit_manifest(folder, edit)
    refuse(folder, ManifestInvalid, where)


def test_a_list_in_place_of_the_manifest_is_refused(folder: Path) -> None:
    (folder / MANIFEST_NAME).write_text("[]")
    refuse(folder, ManifestInvalid, MANIFEST_NAME)


@pytest.mark.parametrize("path", ["../../secret", "/etc/passwd", "report/../../secret", "..\\secret"])
def test_a_path_out_of_the_bundle_is_refused(folder: Path, path: str) -> None:
    edit_manifest(folder, lambda fields: fields["calibration"].update(file=path))
    refuse(folder, PathEscapes, "calibration.file")


def test_a_listed_file_out_of_the_bundle_is_refused(folder: Path) -> None:
    edit_manifest(folder, lambda fields: fields["files"].update({"../secret": "0" * 64}))
    assert "../secret" in refuse(folder, PathEscapes, "files.../secret").reason


@pytest.mark.parametrize("name", ["model.onnx", MANIFEST_NAME])
def test_a_link_out_of_the_bundle_is_refused(folder: Path, tmp_path: Path, name: str) -> None:
    shutil.move(folder / name, tmp_path / "outside")
    (folder / name).symlink_to(tmp_path / "outside")
    refuse(folder, PathEscapes, name)


def test_a_linked_folder_out_of_the_bundle_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    shutil.copy(folder / "model.onnx", tmp_path / "outside" / "model.onnx")
    (folder / "weights").symlink_to(tmp_path / "outside")
    digest = sha256_file(folder / "model.onnx")
    edit_manifest(folder, lambda fields: fields["files"].update({"weights/model.onnx": digest}))
    refuse(folder, PathEscapes, "weights/model.onnx")


def test_links_that_stay_inside_are_followed_as_in_a_mounted_volume(folder: Path) -> None:
    # Kubernetes mounts a volume's files as links through another link, which it replaces to update them.
    version = folder / "..2026_01_01"
    version.mkdir()
    (folder / "..data").symlink_to(version.name)
    for file in [file for file in folder.iterdir() if file.is_file()]:
        shutil.move(file, version / file.name)
        file.symlink_to(f"..data/{file.name}")
    assert load_bundle(folder).model_path.is_file()


def test_a_circular_link_is_a_missing_file(folder: Path) -> None:
    (folder / "model.onnx").unlink()
    (folder / "model.onnx").symlink_to(folder / "model.onnx")
    refuse(folder, FileMissing, "model.onnx")


def test_the_bundle_itself_may_be_reached_through_a_link(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "latest").symlink_to(folder)
    assert load_bundle(tmp_path / "latest").path == folder.resolve()


def reseal(folder: Path, **changes: object) -> None:
    fields = json.loads((folder / MANIFEST_NAME).read_text())
    del fields["files"]
    seal_bundle(folder, fields | changes)


def test_a_calibration_of_another_size_is_refused(folder: Path) -> None:
    edit_manifest(folder, lambda fields: fields["calibration"].update(n=199))
    assert "calibration.n says 199" in refuse(folder, CalibrationInvalid, "calibration.npz").reason


def test_a_score_without_calibration_is_refused(folder: Path) -> None:
    edit_manifest(folder, lambda fields: fields["scores"].append({"name": "bpp", "output": "bpp"}))
    assert "bpp" in refuse(folder, CalibrationInvalid, "calibration.npz").reason


def test_a_bundle_that_would_not_load_is_not_sealed(folder: Path) -> None:
    before = (folder / MANIFEST_NAME).read_bytes()
    save_calibrations(folder / "calibration.npz", {"msp": Calibration.from_scores(np.zeros(3))})
    with pytest.raises(CalibrationInvalid):
        reseal(folder)
    with pytest.raises(ManifestInvalid, match="labels"):
        reseal(folder, labels=None)
    assert (folder / MANIFEST_NAME).read_bytes() == before


def test_a_link_is_not_sealed(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").write_text("x")
    (folder / "notes.txt").symlink_to(tmp_path / "outside")
    with pytest.raises(PathEscapes, match=r"notes\.txt"):
        reseal(folder)


def test_sealing_adds_the_manifest_and_removes_what_an_interrupted_export_left(folder: Path) -> None:
    (folder / f".{MANIFEST_NAME}.partial").write_text("left by an interrupted export")
    reseal(folder)
    assert sorted(file.name for file in folder.iterdir()) == ["calibration.npz", MANIFEST_NAME, "model.onnx"]
    assert load_bundle(folder).manifest.name == "tiny"


def test_the_manifest_is_on_disk_before_it_has_its_name_and_the_name_before_sealing_returns(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def record_fsync(descriptor: int) -> None:
        steps.append(f"fsync {Path(f'/proc/self/fd/{descriptor}').readlink().name}")
        fsync(descriptor)

    def record_replace(path: Path, target: Path) -> Path:
        steps.append(f"rename {path.name} {target.name}")
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", record_fsync)
    monkeypatch.setattr(Path, "replace", record_replace)
    reseal(folder)
    partial = f".{MANIFEST_NAME}.partial"
    assert steps == [f"fsync {partial}", f"rename {partial} {MANIFEST_NAME}", f"fsync {folder.name}"]


def test_sealing_leaves_no_file_open(folder: Path) -> None:
    reseal(folder)
    before = set(Path("/proc/self/fd").iterdir())
    reseal(folder)
    assert set(Path("/proc/self/fd").iterdir()) == before


@given(position=st.integers(0, 10_000), value=st.integers(0, 255))
def test_a_changed_byte_of_the_manifest_never_raises_anything_but_a_bundle_error(
    tmp_path_factory: pytest.TempPathFactory, tiny_bundle: Path, position: int, value: int
) -> None:
    folder = Path(shutil.copytree(tiny_bundle, tmp_path_factory.mktemp("changed") / "1"))
    data = bytearray((folder / MANIFEST_NAME).read_bytes())
    data[position % len(data)] = value
    (folder / MANIFEST_NAME).write_bytes(data)
    with contextlib.suppress(BundleError):
        load_bundle(folder)


def test_a_tiny_bundle_can_have_other_labels_and_sizes(tmp_path: Path) -> None:
    folder = make_tiny_bundle(tmp_path, name="grey", version="12", labels=("dark", "light"), size=5, channels=1)
    manifest = load_bundle(folder).manifest
    assert (manifest.name, manifest.version, manifest.labels) == ("grey", "12", ["dark", "light"])
