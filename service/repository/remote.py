"""A model repository elsewhere, by URI (`s3://`, `gs://`, `hf://`, ...), and its copy in a local folder."""

import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

import fsspec
import structlog

from bundle import MANIFEST_NAME, BundleError, parse_manifest, sha256_file
from service.repository.snapshot import TRAFFIC_NAME, RepositoryError

log = structlog.stdlib.get_logger(__name__)


class _Incomplete(Exception):
    """A bundle elsewhere is not what its manifest says: it is broken, or still being uploaded."""


class Mirror:
    """Keeps `folder` what lies at `uri`, which others may do, too: workers of this service, replicas with its cache.

    A bundle's files are known by the digests in its manifest: what is here already is not fetched again, and nothing
    else ever arrives in its place in the folder.
    """

    def __init__(self, uri: str, folder: Path) -> None:
        self.folder = folder
        self._uri = uri
        self._complaints: dict[str, str] = {}

    def refresh(self) -> None:
        """Fetch what is new or changed, remove what is gone; one process at a time, which the others wait for.

        What is not complete at the URI yet is logged, and fetched once it is. Raises `RepositoryError` where the URI
        cannot be read or holds no bundle.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            # Two that fetch the same bundle would do so into the same place.
            with _alone_in(self.folder):
                self._refresh()
        except RepositoryError:
            raise
        except Exception as error:
            # Every kind of storage has errors of its own; an ImportError names the package that speaks to it.
            raise RepositoryError(f"The model repository {self._uri} cannot be read: {error}") from error

    def _refresh(self) -> None:
        # Files elsewhere change behind the library's back: its cached listings must not be believed.
        files, root = fsspec.url_to_fs(self._uri, use_listings_cache=False, skip_instance_cache=True)
        found = {str(PurePosixPath(path).relative_to(root)) for path in files.find(root)}
        places = sorted(_places(found))
        if not places:
            raise RepositoryError(f"The model repository {self._uri} holds no <name>/<version>/{MANIFEST_NAME}.")
        for place in places:
            self._fetch(files, root, place)
        self._fetch_traffic(files, root, present=TRAFFIC_NAME in found)
        for place in self._local() - set(places):
            shutil.rmtree(self.folder / place)

    def is_empty(self) -> bool:
        """Whether there is no copy of any bundle."""
        return not self._local()

    def _fetch(self, files: Any, root: str, place: str) -> None:
        data = files.cat_file(f"{root}/{place}/{MANIFEST_NAME}")
        target = self.folder / place
        manifest_file = target / MANIFEST_NAME
        if manifest_file.is_file() and manifest_file.read_bytes() == data:
            self._complaints.pop(place, None)
            return
        arriving = target.with_name(f".{target.name}.arriving")
        shutil.rmtree(arriving, ignore_errors=True)
        arriving.mkdir(parents=True)
        try:
            for name, digest in _digests(arriving, data).items():
                _bring(files, f"{root}/{place}/{name}", arriving / name, digest, there=target / name)
        except (_Incomplete, FileNotFoundError) as error:
            shutil.rmtree(arriving)
            if self._complaints.get(place) != str(error):
                log.warning("a bundle is not complete at the model repository", bundle=place, reason=str(error))
            self._complaints[place] = str(error)
            return
        (arriving / MANIFEST_NAME).write_bytes(data)
        if target.exists():
            shutil.rmtree(target)
        arriving.rename(target)
        self._complaints.pop(place, None)
        log.info("bundle fetched", bundle=place, uri=self._uri)

    def _fetch_traffic(self, files: Any, root: str, *, present: bool) -> None:
        local = self.folder / TRAFFIC_NAME
        if not present:
            local.unlink(missing_ok=True)
            return
        data = files.cat_file(f"{root}/{TRAFFIC_NAME}")
        if not local.is_file() or local.read_bytes() != data:
            part = local.with_name(f".{local.name}.arriving")
            part.write_bytes(data)
            part.replace(local)

    def _local(self) -> set[str]:
        return {str(file.parent.relative_to(self.folder)) for file in self.folder.glob(f"[!.]*/[!.]*/{MANIFEST_NAME}")}


def default_folder(uri: str) -> Path:
    """Where the copy of the repository at `uri` is kept unless a setting says otherwise."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "ood-scoring-service" / hashlib.sha256(uri.encode()).hexdigest()[:16]


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Wait until no other process is in here that has the same `folder`."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _places(found: set[str]) -> Iterator[str]:
    for path in found:
        match PurePosixPath(path).parts:
            case (name, version, file) if file == MANIFEST_NAME and not name.startswith(".") and version[:1] != ".":
                yield f"{name}/{version}"


def _digests(folder: Path, manifest: bytes) -> dict[str, str]:
    """The files of a bundle; none of one whose manifest is wrong: loading it says what is, and refuses it."""
    try:
        return dict(parse_manifest(folder, manifest).files)
    except BundleError:
        return {}


def _bring(files: Any, source: str, target: Path, digest: str, *, there: Path) -> None:
    """The file at `source`, or the copy of it that is `there` already, to `target`."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if there.is_file() and sha256_file(there) == digest:
        shutil.copyfile(there, target)
        return
    files.get_file(source, str(target))
    if sha256_file(target) != digest:
        raise _Incomplete(f"{target.name} is not the file that the manifest names")
