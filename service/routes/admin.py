"""Admin calls: load and unload models (the V2 protocol's repository extension), reset drift evidence."""

from typing import Any, TypeVar

from fastapi import Depends
from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.requests import Request

from service.auth.api_keys import KeyFile
from service.auth.middleware import SECURITY, admin_dependency
from service.errors import BundleRefused, InvalidParameter, MalformedBody, ReloadDisabled, RepositoryUnreadable
from service.http.body import read_body
from service.http.error_format import ErrorFormat
from service.http.problem_json import PROBLEM_JSON
from service.http.route import Access, Route
from service.lifecycle import Lifecycle
from service.protocols.native.schemas import DriftReset, IndexEntry, Loaded
from service.protocols.open_inference.error_format import INFERENCE_ERROR
from service.repository.reloader import Reloader
from service.repository.served import Repository
from service.repository.snapshot import RepositoryError

_MAX_BODY_BYTES = 65_536
_BODY_PATIENCE_SECONDS = 10

Body = TypeVar("Body", bound=BaseModel)


class IndexRequest(BaseModel):
    """What to list: all versions, or only those that are served."""

    model_config = ConfigDict(extra="forbid")

    ready: bool = False


class LoadRequest(BaseModel):
    """The protocol's parameters. Those that would change a model are none of this service's: the bundle says it all."""

    model_config = ConfigDict(extra="forbid")

    class Parameters(BaseModel):
        """`unload_dependents` is what clients of the protocol send; no model here depends on another."""

        model_config = ConfigDict(extra="forbid")

        unload_dependents: bool = False

    parameters: Parameters = Parameters()


def routes(
    repository: Repository, reloader: Reloader, lifecycle: Lifecycle, keys: KeyFile, *, reload: str
) -> list[Route]:
    """The admin calls, for who has one of `keys`; `reload` is the setting of that name."""

    async def index(request: Request) -> list[IndexEntry]:
        """Every version in the repository: served, refused, or unloaded."""
        lifecycle.require_loaded()
        ready = (await _parse(request, IndexRequest)).ready
        return [each for each in _index(repository, reloader) if each.state == "READY" or not ready]

    async def load(request: Request, model: str) -> Loaded:
        """Look at the model's folder now, and serve what is in it; also after an unload."""
        lifecycle.require_loaded()
        _require_reload(reload)
        await _parse(request, LoadRequest)
        try:
            refused = await reloader.load(model)
        except (RepositoryError, OSError) as error:
            raise RepositoryUnreadable(str(error)) from error
        if refused:
            reasons = " ".join(f"{each.path}: {each.reason}" for each in refused)
            raise BundleRefused(f"What was served of {model} goes on. {reasons}")
        return Loaded(model=model, versions=repository.versions(model))

    async def unload(request: Request, model: str) -> Loaded:
        """Serve no version of the model until it is loaded again. What was accepted is answered."""
        lifecycle.require_loaded()
        _require_reload(reload)
        await _parse(request, LoadRequest)
        await reloader.unload(model)
        return Loaded(model=model, versions=[])

    async def reset_drift(model: str) -> DriftReset:
        """Forget the traffic that each version's drift evidence has seen; the calibration data remain."""
        lifecycle.require_loaded()
        evidence: dict[str, float] = {}
        for version in repository.versions(model):
            each = repository.get(model, version)
            evidence[version] = each.drift.log10
            each.reset_drift()
        return DriftReset(model=model, evidence=evidence)

    def call(path: str, endpoint: Any, error_format: ErrorFormat, problems: dict[int, str]) -> Route:
        return Route(
            path,
            endpoint,
            error_format=error_format,
            access=Access.ADMIN_KEY,
            methods=["POST"],
            tags=["administration"],
            # In the route, not by its path before it: no spelling of an address can lead around it.
            dependencies=[Depends(admin_dependency(keys))],
            responses=error_format.responses({401: "No admin key, or a wrong one.", 503: "Starting.", **problems}),
            openapi_extra={"security": SECURITY},
        )

    off = {409: "OOD_RELOAD is off."}
    unknown = {404: "Unknown model."}
    return [
        call("/v2/repository/index", index, INFERENCE_ERROR, {}),
        call(
            "/v2/repository/models/{model}/load",
            load,
            INFERENCE_ERROR,
            {**unknown, **off, 422: "A bundle was refused."},
        ),
        call("/v2/repository/models/{model}/unload", unload, INFERENCE_ERROR, {**unknown, **off}),
        call("/v1/models/{model}/drift/reset", reset_drift, PROBLEM_JSON, unknown),
    ]


def _require_reload(reload: str) -> None:
    if reload == "off":
        raise ReloadDisabled(
            "OOD_RELOAD is off: models are loaded at the start only. Restart the service to serve what is in the "
            "repository now, with OOD_RELOAD=admin (or poll) to do without a restart the next time."
        )


def _index(repository: Repository, reloader: Reloader) -> list[IndexEntry]:
    refused = {each.path: each.reason for each in repository.refused}
    ready = {f"{model.name}/{model.version}" for model in repository}
    entries = {bundle_id: IndexEntry.at(bundle_id, "READY", refused.get(bundle_id, "")) for bundle_id in ready}
    for bundle_id, reason in refused.items():
        if "/" in bundle_id and bundle_id not in ready:
            entries[bundle_id] = IndexEntry.at(bundle_id, "UNAVAILABLE", reason)
    for bundle_id in reloader.unloaded():
        entries.setdefault(bundle_id, IndexEntry.at(bundle_id, "UNAVAILABLE", "unloaded"))
    return [entries[bundle_id] for bundle_id in sorted(entries)]


async def _parse(request: Request, body: type[Body]) -> Body:
    content = await read_body(request, _MAX_BODY_BYTES, _BODY_PATIENCE_SECONDS)
    try:
        return body.model_validate_json(content or b"{}")
    except ValidationError as error:
        first = error.errors()[0]
        if first["type"] == "json_invalid":
            raise MalformedBody(f"The body is not JSON: {first['msg']}") from None
        raise InvalidParameter(".".join(str(part) for part in first["loc"]), first["msg"]) from None
