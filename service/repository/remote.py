"""A remote model repository, given by a URI (`s3://`, `gs://`, `hf://`, ...), and its copy in a local folder."""

import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

import fsspec
import structlog

from bundle import MANIFEST_NAME, BundleError, parse_manifest, sha256_file
from service.repository.snapshot import TRAFFIC_NAME, RepositoryError
from service.settings import SettingsError, env_name

log = structlog.stdlib.get_logger(__name__)


class _Incomplete(Exception):
    """A remote bundle does not match its manifest: it is damaged, or still being uploaded."""


class Mirror:
    """Mirrors the repository at a URI into a local folder. Several processes may share the folder.

    Files are compared by the digests in the manifests, and only missing or changed files are downloaded. A bundle
    appears in the folder in one step, when all its files are verified.
    """

    def __init__(self, uri: str, folder: Path) -> None:
        self.folder = folder
        self._uri = uri
        self._incomplete: dict[str, str] = {}

    def refresh(self) -> None:
        """Download new and changed bundles, and remove those that are gone from the URI.

        Incomplete bundles are logged, and downloaded once they are complete. Other processes with the same folder wait
        until the refresh is finished.

        Raises:
            RepositoryError: The URI cannot be read or holds no bundle.
        """
        try:
            self._make_folder()
            # Two processes that download the same bundle would write the same files.
            with _locked(self.folder):
                self._refresh()
        except RepositoryError:
            raise
        except Exception as error:
            # Each kind of storage has its own errors; an ImportError names the package that is missing.
            raise RepositoryError(f"The model repository {self._uri} cannot be read: {error}") from error

    def _make_folder(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RepositoryError(
                f"The folder {str(self.folder)!r} for the copy of {self._uri} cannot be made: {error.strerror}. Set "
                f"{env_name('models_cache')} to a folder that the service may write."
            ) from None

    def is_empty(self) -> bool:
        """Whether the folder holds no bundle."""
        return not self._local_bundles()

    def _refresh(self) -> None:
        # Without caches: other programs change the remote files.
        files, root = fsspec.url_to_fs(self._uri, use_listings_cache=False, skip_instance_cache=True)
        paths = {str(PurePosixPath(path).relative_to(root)) for path in files.find(root)}
        bundle_ids = sorted(_bundle_ids(paths))
        if not bundle_ids:
            raise RepositoryError(f"The model repository {self._uri} holds no <name>/<version>/{MANIFEST_NAME}.")
        for bundle_id in bundle_ids:
            self._refresh_bundle(files, root, bundle_id)
        self._refresh_traffic(files, root, present=TRAFFIC_NAME in paths)
        for bundle_id in self._local_bundles() - set(bundle_ids):
            shutil.rmtree(self.folder / bundle_id)

    def _refresh_bundle(self, files: Any, root: str, bundle_id: str) -> None:
        """Download the bundle `bundle_id`, `<name>/<version>`, unless the copy has the same manifest."""
        data = files.cat_file(f"{root}/{bundle_id}/{MANIFEST_NAME}")
        target = self.folder / bundle_id
        manifest_file = target / MANIFEST_NAME
        if manifest_file.is_file() and manifest_file.read_bytes() == data:
            self._incomplete.pop(bundle_id, None)
            return
        partial = target.with_name(f".{target.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        try:
            for name, digest in _digests(partial, data).items():
                _download(files, f"{root}/{bundle_id}/{name}", partial / name, digest, copy=target / name)
        except (_Incomplete, FileNotFoundError) as error:
            shutil.rmtree(partial)
            if self._incomplete.get(bundle_id) != str(error):
                log.warning("remote bundle incomplete", bundle=bundle_id, reason=str(error))
            self._incomplete[bundle_id] = str(error)
            return
        (partial / MANIFEST_NAME).write_bytes(data)
        if target.exists():
            shutil.rmtree(target)
        partial.rename(target)
        self._incomplete.pop(bundle_id, None)
        log.info("bundle downloaded", bundle=bundle_id, uri=self._uri)

    def _refresh_traffic(self, files: Any, root: str, *, present: bool) -> None:
        """Copy `traffic.yaml`, or remove the copy if it is not `present` at the URI."""
        local = self.folder / TRAFFIC_NAME
        if not present:
            local.unlink(missing_ok=True)
            return
        data = files.cat_file(f"{root}/{TRAFFIC_NAME}")
        if not local.is_file() or local.read_bytes() != data:
            partial = local.with_name(f".{local.name}.partial")
            partial.write_bytes(data)
            partial.replace(local)

    def _local_bundles(self) -> set[str]:
        return {str(file.parent.relative_to(self.folder)) for file in self.folder.glob(f"[!.]*/[!.]*/{MANIFEST_NAME}")}


def default_folder(uri: str) -> Path:
    """The folder for the copy of the repository at `uri`, unless a setting names another one.

    Raises:
        SettingsError: The user has no home directory.
    """
    try:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:
        raise SettingsError(
            f"{env_name('models')} = {uri!r} needs a folder for its copy, and this user has no home directory. Set "
            f"{env_name('models_cache')} to a folder that the service may write."
        ) from None
    return cache / "ood-scoring-service" / hashlib.sha256(uri.encode()).hexdigest()[:16]


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold an exclusive lock on `folder`, which other processes and threads wait for."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _bundle_ids(paths: Iterable[str]) -> Iterator[str]:
    """The `<name>/<version>` of each manifest among `paths`."""
    for path in paths:
        match PurePosixPath(path).parts:
            case (name, version, file) if file == MANIFEST_NAME and not name.startswith(".") and version[:1] != ".":
                yield f"{name}/{version}"


def _digests(folder: Path, manifest: bytes) -> dict[str, str]:
    """The SHA-256 digests of a bundle's files by name; empty for an invalid manifest, which is refused when loaded."""
    try:
        return dict(parse_manifest(folder, manifest).files)
    except BundleError:
        return {}


def _download(files: Any, source: str, target: Path, digest: str, *, copy: Path) -> None:
    """Write the file at `source` to `target`, from the local `copy` if that has the right digest.

    Raises:
        _Incomplete: The remote file has another digest.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    if copy.is_file() and sha256_file(copy) == digest:
        shutil.copyfile(copy, target)
        return
    files.get_file(source, str(target))
    if sha256_file(target) != digest:
        raise _Incomplete(f"{target.name} is not the file that the manifest names")
