"""A repository by URI: downloaded, verified, refreshed, and served from its copy while the storage is unreachable."""

import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fsspec
import pytest

from bundle import MANIFEST_NAME, load_bundle
from service.repository.remote import Mirror, default_folder
from service.repository.snapshot import RepositoryError
from tests.service.conftest import Serve
from tests.service.support.pictures import picture
from tests.support.tiny_bundle import make_tiny_bundle
from tests.support.waiting import until

URI = "memory://bucket/models"


@pytest.fixture
def storage() -> Iterator[Any]:
    """Object storage in memory."""
    files = fsspec.filesystem("memory")
    yield files
    files.store.clear()


def upload(storage: Any, local: Path, bundle_id: str = "tiny/1") -> None:
    for file in local.rglob("*"):
        if file.is_file():
            storage.pipe(f"bucket/models/{bundle_id}/{file.relative_to(local)}", file.read_bytes())


def test_bundles_are_downloaded_completely_and_only_once(storage: Any, tmp_path: Path, tiny_bundle: Path) -> None:
    upload(storage, tiny_bundle)
    mirror = Mirror(URI, tmp_path / "copy")
    mirror.refresh()
    assert load_bundle(tmp_path / "copy/tiny/1").manifest == load_bundle(tiny_bundle).manifest
    before = (tmp_path / "copy/tiny/1/model.onnx").stat().st_ino
    mirror.refresh()
    assert (tmp_path / "copy/tiny/1/model.onnx").stat().st_ino == before


def test_new_bundles_are_downloaded_and_removed_ones_deleted(storage: Any, tmp_path: Path, tiny_bundle: Path) -> None:
    upload(storage, tiny_bundle)
    mirror = Mirror(URI, tmp_path / "copy")
    mirror.refresh()
    upload(storage, make_tiny_bundle(tmp_path / "made", version="2"), "tiny/2")
    storage.rm("bucket/models/tiny/1", recursive=True)
    storage.pipe("bucket/models/traffic.yaml", b"tiny: {serve: latest}")
    mirror.refresh()
    assert sorted(path.name for path in (tmp_path / "copy/tiny").iterdir()) == ["2"]
    assert (tmp_path / "copy/traffic.yaml").read_bytes() == b"tiny: {serve: latest}"
    storage.rm("bucket/models/traffic.yaml")
    mirror.refresh()
    assert not (tmp_path / "copy/traffic.yaml").exists()


@pytest.mark.parametrize("harm", ["missing", "changed"])
def test_an_incomplete_bundle_does_not_replace_the_copy(
    storage: Any, tmp_path: Path, tiny_bundle: Path, harm: str
) -> None:
    upload(storage, tiny_bundle)
    mirror = Mirror(URI, tmp_path / "copy")
    mirror.refresh()
    good = (tmp_path / "copy/tiny/1" / MANIFEST_NAME).read_bytes()
    upload(storage, make_tiny_bundle(tmp_path / "made", seed=3))
    complete = storage.cat_file("bucket/models/tiny/1/calibration.npz")
    if harm == "missing":
        storage.rm("bucket/models/tiny/1/calibration.npz")
    else:
        storage.pipe("bucket/models/tiny/1/calibration.npz", complete[:-1])
    mirror.refresh()
    assert (tmp_path / "copy/tiny/1" / MANIFEST_NAME).read_bytes() == good
    load_bundle(tmp_path / "copy/tiny/1")
    storage.pipe("bucket/models/tiny/1/calibration.npz", complete)
    mirror.refresh()
    assert (tmp_path / "copy/tiny/1" / MANIFEST_NAME).read_bytes() != good
    load_bundle(tmp_path / "copy/tiny/1")


def test_an_unreadable_uri_is_an_error_and_the_copy_stays(storage: Any, tmp_path: Path, tiny_bundle: Path) -> None:
    upload(storage, tiny_bundle)
    mirror = Mirror(URI, tmp_path / "copy")
    assert mirror.is_empty()
    mirror.refresh()
    storage.rm("bucket", recursive=True)
    with pytest.raises(RepositoryError, match=r"memory://bucket/models holds no <name>/<version>/manifest\.json"):
        mirror.refresh()
    assert not mirror.is_empty()
    with pytest.raises(RepositoryError, match="nosuch://x cannot be read: Protocol not known: nosuch"):
        Mirror("nosuch://x", tmp_path / "other").refresh()


def test_a_manifest_cannot_name_files_outside_the_folder(storage: Any, tmp_path: Path, tiny_bundle: Path) -> None:
    upload(storage, tiny_bundle)
    text = (tiny_bundle / MANIFEST_NAME).read_text().replace('"model.onnx":', '"../../../evil":')
    storage.pipe(f"bucket/models/tiny/1/{MANIFEST_NAME}", text.encode())
    storage.pipe("bucket/evil", b"evil")
    Mirror(URI, tmp_path / "copy").refresh()
    assert [file.name for file in (tmp_path / "copy").rglob("*") if file.is_file()] == [MANIFEST_NAME]


def test_several_mirrors_may_refresh_one_folder_at_once(storage: Any, tmp_path: Path, tiny_bundle: Path) -> None:
    for version in range(1, 6):
        upload(storage, make_tiny_bundle(tmp_path / "made", version=str(version)), f"tiny/{version}")
    with ThreadPoolExecutor(4) as workers:
        list(workers.map(lambda _: Mirror(URI, tmp_path / "copy").refresh(), range(8)))
    for version in range(1, 6):
        load_bundle(tmp_path / "copy/tiny" / str(version))
    assert not list((tmp_path / "copy").rglob(".*"))


def test_a_service_serves_a_uri_and_follows_it(serve: Serve, tmp_path: Path) -> None:
    source = tmp_path / "source"
    make_tiny_bundle(source)
    settings = {"models_cache": tmp_path / "copy", "reload": "poll", "reload_seconds": 0.05}
    with serve(f"file://{source}", **settings) as live:
        assert live.score(picture()).json()["version"] == "1"
        make_tiny_bundle(source, version="2")
        until(lambda: live.score(picture()).json()["version"] == "2")
    shutil.rmtree(source)
    with serve(f"file://{source}", models_cache=tmp_path / "copy") as live:
        assert live.score(picture()).json()["version"] == "2"


def test_each_uri_has_a_separate_copy() -> None:
    assert default_folder("s3://a/models") != default_folder("s3://b/models")
