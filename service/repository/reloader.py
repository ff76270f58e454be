"""Loads the repository's bundles at the start and follows later changes of its folder."""

import asyncio
from collections.abc import Callable, Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import structlog

from bundle import Bundle
from service.errors import UnknownModel
from service.inference.providers import ProviderUnavailable
from service.repository.model import Model, verified_bundle
from service.repository.reconcile import (
    Action,
    Forget,
    Load,
    Refuse,
    attempt,
    missing_entries,
    reconcile,
    settled_entries,
)
from service.repository.refused import FilesChanging, Refusals, Refused
from service.repository.retirement import Retirement
from service.repository.served import Repository
from service.repository.snapshot import (
    TRAFFIC_NAME,
    RepositoryError,
    Snapshot,
    is_bundle,
    model_of,
    scan,
    snapshot_of,
)
from service.repository.traffic_rules import Rules, read_rules
from service.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from service.repository.remote import Mirror

LoadModel = Callable[[Bundle], Model]

log = structlog.stdlib.get_logger(__name__)


class Reloader:
    """Keeps the served models in step with the repository's folder.

    A version is verified, loaded and warmed up on a separate thread, then swapped in between two requests. A bundle
    that cannot be loaded is refused once for each state of its files, and never replaces a served version. A version
    that is removed gets no new requests, and is closed after the last request that uses it.

    All methods run on the event loop; only one of them acts at a time.
    """

    def __init__(self, repository: Repository, metrics: Metrics, mirror: "Mirror | None" = None) -> None:
        """Start without any model.

        Args:
            repository: Holds the served models; its `root` is the folder.
            metrics: The application's metrics.
            mirror: Downloads a remote repository into the folder before each scan.
        """
        self._repository = repository
        self._root = repository.root
        self._metrics = metrics
        self._mirror = mirror
        metrics.refused_bundles.set_function(lambda: len(repository.refused))
        self._refusals = Refusals(repository.root, metrics)
        self._load_model: LoadModel | None = None
        self._models: dict[str, Model] = {}
        self._rules: Rules = {}
        self._logged_shares: dict[str, dict[str, float]] = {}
        self._last_attempts: dict[str, Snapshot] = {}
        self._last_scan: dict[str, Snapshot] = {}
        self._unloaded: set[str] = set()
        self._lock = asyncio.Lock()
        self._polling: asyncio.Task[None] | None = None
        self._closing = asyncio.Event()
        self._last_problem = ""
        # A single thread: loading two models at once would take more cores from the models that serve.
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="reload")
        self._retirement = Retirement(metrics, self._pool)

    async def start(self, load_model: LoadModel) -> None:
        """Load and serve every valid bundle of the folder; refuse the others.

        Args:
            load_model: Makes a verified bundle a warm model. Called on the reloader's thread.

        Raises:
            RepositoryError: No bundle can be served, or `traffic.yaml` is invalid.
            ProviderUnavailable: The required provider is missing.
        """
        async with self._lock:
            self._load_model = load_model
            self._last_scan = await self._in_thread(self._scan, True)
            for entry, snapshot in self._last_scan.items():
                await self._load_or_refuse(attempt(entry, snapshot), starting=True)
                for refused in self._refusals.of([TRAFFIC_NAME]):
                    # No earlier rules exist to fall back to, and without rules the wrong version might answer.
                    raise RepositoryError(f"{self._root / TRAFFIC_NAME}: {refused.reason}")
            if not self._models:
                raise self._refusals.nothing_to_serve()
            self._report_refusals()

    def poll(self, seconds: float) -> None:
        """Start to call `poll_once` every `seconds`, until `close`."""
        self._polling = asyncio.create_task(self._poll(seconds))

    async def poll_once(self) -> None:
        """Scan the folder, serve what is new and remove what is missing.

        A change is applied once two scans in a row agree on it, so that files still being written are left alone. If
        the folder is unreadable or without bundles, for example because a volume is unmounted, all models stay.
        """
        async with self._lock:
            try:
                scanned = await self._in_thread(self._scan)
            except (RepositoryError, OSError) as error:
                self._log_once(str(error))
                return
            last_scan, self._last_scan = self._last_scan, scanned
            if self._models and not any(is_bundle(entry) for entry in scanned):
                self._log_once(f"The model repository {str(self._root)!r} is empty; all models stay served.")
                return
            self._log_once("")
            await self._apply(
                reconcile(
                    scanned,
                    settled=settled_entries(scanned, last_scan),
                    missing=missing_entries(self._known_entries(), scanned, last_scan),
                    last_attempts=self._last_attempts,
                    unloaded=self._unloaded,
                )
            )

    async def load(self, name: str) -> list[Refused]:
        """Load the current versions of the model `name`, also after `unload`.

        Returns:
            The refused entries among the model's bundles and `traffic.yaml`.

        Raises:
            UnknownModel: The folder has no bundle of the model.
            RepositoryError: The folder cannot be read.
        """
        async with self._lock:
            scanned = await self._in_thread(self._scan)
            bundles = [
                entry for entry, snapshot in scanned.items() if model_of(entry) == name and snapshot.has_manifest
            ]
            if not bundles:
                raise UnknownModel(f"There is no bundle in {name[:64]}/<version>/ of the model repository.")
            self._unloaded.discard(name)
            for entry in bundles:
                # The caller may know that the refusal had a cause outside the bundle: try again, though unchanged.
                if entry in self._refusals:
                    self._last_attempts.pop(entry, None)
            known = [entry for entry in self._known_entries() if model_of(entry) in (name, TRAFFIC_NAME)]
            self._last_scan = {**self._last_scan, **{entry: scanned[entry] for entry in bundles}}
            await self._apply(
                reconcile(
                    scanned,
                    settled=[TRAFFIC_NAME, *bundles],
                    missing=[entry for entry in known if entry not in scanned],
                    last_attempts=self._last_attempts,
                )
            )
            return self._refusals.of([TRAFFIC_NAME, *bundles])

    async def unload(self, name: str) -> None:
        """Stop serving the model `name` until `load`.

        Raises:
            UnknownModel: The model is not served.
        """
        async with self._lock:
            self._repository.versions(name)
            self._unloaded.add(name)
            self._unserve([entry for entry in self._known_entries() if model_of(entry) == name])
            self._report_refusals()

    def unloaded(self) -> list[str]:
        """The bundles, `<name>/<version>`, that were in the last scan and are not served because of `unload`."""
        return [entry for entry in self._last_scan if model_of(entry) in self._unloaded and is_bundle(entry)]

    async def close(self) -> None:
        """Stop polling and close every model. Call it last, when no request needs a model."""
        self._closing.set()
        if self._polling is not None:
            await self._polling
        async with self._lock:
            for model in [*self._models.values(), *self._retirement.cancel()]:
                await self._in_thread(model.close)
        self._pool.shutdown()

    async def _poll(self, seconds: float) -> None:
        while not self._closing.is_set():
            try:
                await asyncio.wait_for(self._closing.wait(), seconds)
            except TimeoutError:
                try:
                    await self.poll_once()
                except Exception:
                    log.exception("repository poll failed")

    async def _apply(self, actions: Iterable[Action]) -> None:
        removals: list[Forget] = []
        for action in actions:
            if isinstance(action, Forget):
                removals.append(action)
            else:
                await self._load_or_refuse(action)
        missing = {forget.entry for forget in removals}
        self._unserve(
            [forget.entry for forget in removals if not (forget.unless_last and self._is_last(forget.entry, missing))]
        )
        self._report_refusals()

    async def _load_or_refuse(self, action: Load | Refuse, *, starting: bool = False) -> None:
        """Load the entry and serve it, or refuse it.

        Raises:
            ProviderUnavailable: The required provider is missing, while `starting`.
        """
        entry, models = action.entry, dict(self._models)
        complete = True
        try:
            if isinstance(action, Refuse):
                raise RepositoryError(action.reason)
            if entry == TRAFFIC_NAME:
                self._rules = await self._in_thread(read_rules, self._root / entry)
            elif (model := await self._in_thread(self._load, entry, action.snapshot)) is not None:
                models[entry] = model
        except Exception as error:
            if starting and isinstance(error, ProviderUnavailable):
                raise
            self._refusals.add(entry, error)
            # Files that changed in between were not tried in their present state; the next scan differs from it.
            complete = not isinstance(error, FilesChanging)
        else:
            self._refusals.drop(entry)
        if complete:
            self._last_attempts[entry] = action.snapshot
        self._swap(models)

    def _scan(self, starting: bool = False) -> dict[str, Snapshot]:
        """Update the mirror, if any, and scan the folder. Runs on the reloader's thread."""
        if self._mirror is not None:
            try:
                self._mirror.refresh()
            except RepositoryError as error:
                if not starting or self._mirror.is_empty():
                    raise
                # A replica that restarts while the storage is unreachable serves its earlier copies.
                log.warning("remote repository unavailable", reason=str(error))
        return scan(self._root)

    def _load(self, entry: str, snapshot: Snapshot) -> Model | None:
        """Load a bundle; None if the same content is served already. Runs on the reloader's thread.

        Raises:
            FilesChanging: The files changed after `snapshot` was taken.
        """
        assert self._load_model is not None, "models are loaded from `start` on"
        bundle = verified_bundle(self._root / entry)
        served = self._models.get(entry)
        if served is not None and served.bundle.manifest == bundle.manifest:
            # Files were only touched or copied. The served model keeps its drift evidence.
            return None
        model = self._load_model(bundle)
        # Equal snapshots prove that the loaded files are the verified ones.
        if snapshot_of(self._root / entry) != snapshot:
            model.close()
            raise FilesChanging
        return model

    def _swap(self, models: dict[str, Model]) -> None:
        """Serve `models` instead of the present ones. Without an `await`, so that no request runs in between."""
        before, self._models = self._models, models
        repository = self._repository
        repository.serve(models.values(), self._rules)
        for entry, model in models.items():
            if before.get(entry) is not model:
                model.publish()
                self._metrics.reloads.labels(model.name, "loaded").inc()
                plan = model.batcher.plan
                tuned = {"mode": plan.mode, "threads": plan.threads, "batch": plan.max_batch}
                log.info("model loaded", model=model.name, version=model.version, provider=model.provider, **tuned)
        for name in {model_of(entry) for entry in (*before, *models)}:
            self._metrics.share_traffic(name, repository.shares(name))
        for entry, model in before.items():
            if models.get(entry) is not model:
                self._retirement.retire(model)

    def _unserve(self, entries: list[str]) -> None:
        """Stop serving `entries` and forget their refusals, whether or not their files exist."""
        if not entries:
            return
        models = dict(self._models)
        for entry in entries:
            self._last_attempts.pop(entry, None)
            self._refusals.drop(entry)
            models.pop(entry, None)
            if entry == TRAFFIC_NAME:
                self._rules = {}
        self._swap(models)

    def _report_refusals(self) -> None:
        """Publish what is not served. Called after all changes of a scan: a rule may name a version loaded later."""
        repository = self._repository
        repository.refused = self._refusals.all(
            self._rules, {name: repository.versions(name) for name in repository.names}
        )
        for name in self._rules:
            shares = {f"{version} ({role})": share for (version, role), share in repository.shares(name).items()}
            if shares != self._logged_shares.get(name):
                log.info("traffic rule in effect", model=name, shares=shares)
                self._logged_shares[name] = shares

    def _known_entries(self) -> set[str]:
        return {*self._last_attempts, *self._models, *self._refusals.entries}

    def _is_last(self, entry: str, missing: Collection[str]) -> bool:
        """Whether `entry` answers for its model, and all served versions of the model are `missing`."""
        name = model_of(entry)
        if entry not in self._models or any(model_of(served) == name for served in self._models.keys() - missing):
            return False
        return self._models[entry] is self._repository.get(name)

    def _log_once(self, problem: str) -> None:
        """Log `problem`, unless it was the last one; an empty text means that there is none."""
        if problem and problem != self._last_problem:
            log.error("repository unavailable", reason=problem)
        self._last_problem = problem

    async def _in_thread(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._pool, function, *arguments)
