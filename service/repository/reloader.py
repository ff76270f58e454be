"""From the repository's folder to the models that are served: at the start, and whenever the folder changes."""

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import structlog

from bundle import Bundle
from service.errors import UnknownModel
from service.inference.providers import ProviderUnavailable
from service.repository.model import Model, verified_bundle
from service.repository.refused import FilesChanging, Refusals, Refused
from service.repository.served import Repository
from service.repository.snapshot import TRAFFIC_NAME, RepositoryError, Snapshot, scan, snapshot_of
from service.repository.traffic_rules import Rules, read_rules
from service.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from service.repository.remote import Mirror

Load = Callable[[Bundle], Model]

log = structlog.stdlib.get_logger(__name__)


class Reloader:
    """Brings into `repository` what lies in its folder; one look at a time.

    A version is verified, loaded and warmed on a thread of its own, then swapped in between two requests. What cannot
    be loaded is refused, once for each state that its files are in, and never replaces what is served. A version that
    is gone gets no new requests, and is closed after the last one that has it.
    """

    def __init__(self, repository: Repository, metrics: Metrics, mirror: "Mirror | None" = None) -> None:
        """`mirror`, if any, brings what lies elsewhere into the folder before each look."""
        self._mirror = mirror
        self._repository = repository
        self._root = repository.root
        self._metrics = metrics
        metrics.refused_bundles.set_function(lambda: len(repository.refused))
        self._refusals = Refusals(repository.root, metrics)
        self._load_model: Load | None = None
        # By their places, `name/version`.
        self._models: dict[str, Model] = {}
        self._rules: Rules = {}
        # The state in which a place was last tried, and the one that the last look found it in.
        self._tried: dict[str, Snapshot] = {}
        self._seen: Mapping[str, Snapshot] = {}
        self._unloaded: set[str] = set()
        self._retiring: dict[asyncio.Task[None], Model] = {}
        self._one_at_a_time = asyncio.Lock()
        self._polling: asyncio.Task[None] | None = None
        self._ending = asyncio.Event()
        self._complaint = ""
        # One thread: two models that load at once would only take more cores from those that serve.
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="reload")

    async def start(self, load: Load) -> None:
        """Serve every good bundle, made a model by `load`; the others are refused.

        Raises `RepositoryError` where nothing can be served or `traffic.yaml` is wrong, `ProviderUnavailable` where the
        required provider is not there.
        """
        async with self._one_at_a_time:
            self._load_model = load
            found = await self._in_thread(self._find, True)
            self._seen = found
            for place, state in found.items():
                await self._try(place, state, starting=True)
                for refused in self._refusals.of([TRAFFIC_NAME]):
                    # There are no rules before these to go on with, and without them the wrong version might answer.
                    raise RepositoryError(f"{self._root / TRAFFIC_NAME}: {refused.reason}")
            if not self._models:
                raise self._refusals.nothing_to_serve()

    def poll(self, seconds: float) -> None:
        """From here on look every so many seconds."""
        self._polling = asyncio.create_task(self._poll(seconds))

    async def load(self, name: str) -> list[Refused]:
        """Serve what lies in the folder of the model `name` now, also after `unload`; what of it is refused.

        Raises `UnknownModel` where there is no such folder with a bundle in it, `RepositoryError`.
        """
        async with self._one_at_a_time:
            found = await self._in_thread(self._find)
            places = [place for place, state in found.items() if _model_of(place) == name and state.has_manifest]
            if not places:
                raise UnknownModel(f"There is no bundle in {name[:64]}/<version>/ of the model repository.")
            self._unloaded.discard(name)
            for place in places:
                # Whoever asks may know that it was not the bundle's fault.
                if place in self._refusals:
                    self._tried.pop(place, None)
            gone = [place for place in self._known() if _model_of(place) in (name, TRAFFIC_NAME) and place not in found]
            self._seen = {**self._seen, **{place: found[place] for place in places}}
            await self._follow([TRAFFIC_NAME, *places], gone, found)
            return self._refusals.of([TRAFFIC_NAME, *places])

    async def unload(self, name: str) -> None:
        """Serve no version of the model `name` until `load`. Raises `UnknownModel`."""
        async with self._one_at_a_time:
            self._repository.versions(name)
            self._unloaded.add(name)
            self._forget([place for place in self._known() if _model_of(place) == name])

    def unloaded(self) -> list[str]:
        """The places of what `unload` took away and the last look has seen."""
        return [place for place in self._seen if _model_of(place) in self._unloaded and "/" in place]

    async def close(self) -> None:
        """End every model; the last call, once nothing asks for one any more."""
        self._ending.set()
        if self._polling is not None:
            await self._polling
        async with self._one_at_a_time:
            models = [*self._models.values(), *self._retiring.values()]
            for task in self._retiring:
                task.cancel()
            for model in models:
                await self._in_thread(model.close)
        self._pool.shutdown()

    async def _poll(self, seconds: float) -> None:
        while not self._ending.is_set():
            try:
                await asyncio.wait_for(self._ending.wait(), seconds)
            except TimeoutError:
                try:
                    await self._look()
                except Exception:
                    log.exception("the repository could not be looked at")

    async def _look(self) -> None:
        """Serve what has changed since the last look but one and not since the last: what still changes can wait."""
        async with self._one_at_a_time:
            try:
                found = await self._in_thread(self._find)
            except (RepositoryError, OSError) as error:
                # A volume that is not mounted for a moment must not take every model away.
                self._complain(str(error))
                return
            settled = [place for place, state in found.items() if self._seen.get(place) == state]
            gone = [place for place in self._known() if place not in found and place not in self._seen]
            self._seen = found
            if self._models and not any("/" in place for place in found):
                self._complain(f"The model repository {str(self._root)!r} is empty; what was served goes on.")
                return
            self._complain("")
            await self._follow(settled, gone, found)

    async def _follow(self, places: Iterable[str], gone: Iterable[str], found: Mapping[str, Snapshot]) -> None:
        # New versions before old ones go: the model is served all the while. Traffic first: it says who may answer.
        for place in sorted(places, key=lambda place: place != TRAFFIC_NAME):
            state = found.get(place)
            if state is None or self._tried.get(place) == state or _model_of(place) in self._unloaded:
                continue
            if place == TRAFFIC_NAME or state.has_manifest:
                await self._try(place, state)
        self._forget([place for place in gone if not self._is_last_resort(place, found)])

    async def _try(self, place: str, state: Snapshot, *, starting: bool = False) -> None:
        """Serve what is at `place`, or refuse it."""
        models = dict(self._models)
        # What changed meanwhile was not tried as it is now: the next look finds it in another state.
        tried = True
        try:
            if place == TRAFFIC_NAME:
                self._rules = await self._in_thread(read_rules, self._root / place)
            elif "/" not in place:
                raise RepositoryError(f"a bundle belongs one level deeper, in {place}/<version>/; move it there")
            elif (model := await self._in_thread(self._load, place, state)) is not None:
                models[place] = model
        except Exception as error:
            if starting and isinstance(error, ProviderUnavailable):
                raise
            self._refusals.add(place, error)
            tried = not isinstance(error, FilesChanging)
        else:
            self._refusals.drop(place)
        if tried:
            self._tried[place] = state
        self._serve(models)

    def _find(self, starting: bool = False) -> dict[str, Snapshot]:
        """What lies in the folder now. On the reloader's thread."""
        if self._mirror is not None:
            try:
                self._mirror.refresh()
            except RepositoryError as error:
                if not starting or self._mirror.is_empty():
                    raise
                # A replica that restarts while the storage is away serves what it had.
                log.warning("serving the copies of an earlier start", reason=str(error))
        return scan(self._root)

    def _load(self, place: str, state: Snapshot) -> Model | None:
        """The model at `place`, warm; None where just this is served already. On the reloader's thread."""
        assert self._load_model is not None, "models are loaded from `start` on"
        bundle = verified_bundle(self._root / place)
        served = self._models.get(place)
        if served is not None and served.bundle.manifest == bundle.manifest:
            # The same files to the last byte, touched or copied: the model that runs has its drift evidence.
            return None
        model = self._load_model(bundle)
        # What was verified is what was loaded, if nobody wrote in between.
        if snapshot_of(self._root / place) != state:
            model.close()
            raise FilesChanging
        return model

    def _serve(self, models: dict[str, Model]) -> None:
        """Swap: no `await` in here, so that no request falls in between."""
        before, self._models = self._models, models
        repository = self._repository
        repository.serve(models.values(), self._rules)
        repository.refused = self._refusals.all(
            self._rules, {name: repository.versions(name) for name in repository.names}
        )
        for place, model in models.items():
            if before.get(place) is not model:
                model.publish()
                self._metrics.reloads.labels(model.name, "loaded").inc()
                plan = model.batcher.plan
                tuned = {"mode": plan.mode, "threads": plan.threads, "batch": plan.max_batch}
                log.info("model loaded", model=model.name, version=model.version, provider=model.provider, **tuned)
        for name in {_model_of(place) for place in (*before, *models)}:
            self._metrics.share_traffic(name, repository.shares(name))
        for place, model in before.items():
            if models.get(place) is not model:
                task = asyncio.create_task(self._retire(model))
                self._retiring[task] = model
                task.add_done_callback(self._retiring.pop)

    async def _retire(self, model: Model) -> None:
        await model.references.wait_unused()
        await self._in_thread(model.close)
        self._metrics.reloads.labels(model.name, "retired").inc()
        log.info("model retired", model=model.name, version=model.version)

    def _forget(self, places: Collection[str]) -> None:
        """Serve nothing of `places` any more, whatever becomes of their files."""
        if not places:
            return
        models = dict(self._models)
        for place in places:
            self._tried.pop(place, None)
            self._refusals.drop(place)
            models.pop(place, None)
            if place == TRAFFIC_NAME:
                self._rules = {}
        self._serve(models)

    def _known(self) -> set[str]:
        return {*self._tried, *self._models, *self._refusals.places}

    def _is_last_resort(self, place: str, found: Mapping[str, Snapshot]) -> bool:
        """Whether it is all that is served of its model, and what is to take its place is not good, or not yet."""
        name = _model_of(place)
        others = [each for each in self._models if _model_of(each) == name and each != place]
        waiting = any(_model_of(each) == name and state.has_manifest for each, state in found.items())
        return place in self._models and not others and waiting

    def _complain(self, complaint: str) -> None:
        if complaint and complaint != self._complaint:
            log.error("the models stay as they were", reason=complaint)
        self._complaint = complaint

    async def _in_thread(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._pool, function, *arguments)


def _model_of(place: str) -> str:
    return place.partition("/")[0]
