"""The protocol's model repository extension: lists, loads and unloads models, for requests with an admin key."""

from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.requests import Request

from service.auth.admin_route import admin_route
from service.auth.api_keys import KeyFile
from service.errors import BundleRefused, InvalidParameter, MalformedBody, ReloadDisabled, RepositoryUnreadable
from service.http.body import read_body
from service.http.route import Route
from service.protocols.dependencies import Dependencies
from service.protocols.open_inference.error_format import INFERENCE_ERROR
from service.protocols.open_inference.schemas import IndexEntry, Loaded
from service.repository.reloader import Reloader
from service.repository.served import Repository
from service.repository.snapshot import RepositoryError

_MAX_BODY_BYTES = 65_536
_BODY_TIMEOUT_SECONDS = 10

Body = TypeVar("Body", bound=BaseModel)


class IndexRequest(BaseModel):
    """Whether to list all versions, or only those that are served."""

    model_config = ConfigDict(extra="forbid")

    ready: bool = False


class LoadRequest(BaseModel):
    """The parameters of a load or an unload. The protocol's others would change a model, which its bundle defines."""

    model_config = ConfigDict(extra="forbid")

    class Parameters(BaseModel):
        """Clients of the protocol send `unload_dependents`; no model of this service depends on another."""

        model_config = ConfigDict(extra="forbid")

        unload_dependents: bool = False

    parameters: Parameters = Parameters()


def repository_routes(dependencies: Dependencies, keys: KeyFile) -> list[Route]:
    """The routes of the extension, for requests with one of `keys`."""
    repository, reloader, lifecycle = dependencies.repository, dependencies.reloader, dependencies.lifecycle
    reload = dependencies.settings.reload

    async def index(request: Request) -> list[IndexEntry]:
        """Every version in the repository: served, refused, or unloaded."""
        lifecycle.require_loaded()
        return index_entries(repository, reloader, ready=(await _parse(request, IndexRequest)).ready)

    async def load(request: Request, model: str) -> Loaded:
        """Scan the model's folder now, and serve its versions; also after an unload."""
        lifecycle.require_loaded()
        _require_reload(reload)
        await _parse(request, LoadRequest)
        try:
            refused = await reloader.load(model)
        except (RepositoryError, OSError) as error:
            raise RepositoryUnreadable(str(error)) from error
        if refused:
            reasons = " ".join(f"{bundle.path}: {bundle.reason}" for bundle in refused)
            raise BundleRefused(f"The versions of {model} that were served still are. {reasons}")
        return Loaded(model=model, versions=repository.versions(model))

    async def unload(request: Request, model: str) -> Loaded:
        """Serve no version of the model until it is loaded again. Accepted requests are answered."""
        lifecycle.require_loaded()
        _require_reload(reload)
        await _parse(request, LoadRequest)
        await reloader.unload(model)
        return Loaded(model=model, versions=[])

    off = {409: "OOD_RELOAD is off."}
    unknown = {404: "Unknown model."}
    refused = {422: "A bundle was refused."}
    model = "/v2/repository/models/{model}"
    return [
        admin_route("/v2/repository/index", index, keys, {}, INFERENCE_ERROR),
        admin_route(f"{model}/load", load, keys, {**unknown, **off, **refused}, INFERENCE_ERROR),
        admin_route(f"{model}/unload", unload, keys, {**unknown, **off}, INFERENCE_ERROR),
    ]


def _require_reload(reload: str) -> None:
    if reload == "off":
        raise ReloadDisabled(
            "OOD_RELOAD is off: models are loaded at the start only. Restart the service to serve what is in the "
            "repository now, with OOD_RELOAD=admin (or poll) to do without a restart the next time."
        )


def index_entries(repository: Repository, reloader: Reloader, *, ready: bool) -> list[IndexEntry]:
    """Every version in the repository, or only those that are served if `ready` is true."""
    refused = {bundle.path: bundle.reason for bundle in repository.refused}
    served = {f"{model.name}/{model.version}" for model in repository}
    entries = {bundle_id: IndexEntry.at(bundle_id, "READY", refused.get(bundle_id, "")) for bundle_id in served}
    for bundle_id, reason in refused.items():
        if "/" in bundle_id and bundle_id not in served:
            entries[bundle_id] = IndexEntry.at(bundle_id, "UNAVAILABLE", reason)
    for bundle_id in reloader.unloaded():
        entries.setdefault(bundle_id, IndexEntry.at(bundle_id, "UNAVAILABLE", "unloaded"))
    return [entries[bundle_id] for bundle_id in sorted(entries) if entries[bundle_id].state == "READY" or not ready]


async def _parse(request: Request, body: type[Body]) -> Body:
    content = await read_body(request, _MAX_BODY_BYTES, _BODY_TIMEOUT_SECONDS)
    try:
        return body.model_validate_json(content or b"{}")
    except ValidationError as error:
        first = error.errors()[0]
        if first["type"] == "json_invalid":
            raise MalformedBody(f"The body is not JSON: {first['msg']}") from None
        raise InvalidParameter(".".join(str(part) for part in first["loc"]), first["msg"]) from None
