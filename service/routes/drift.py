"""`POST /v1/models/{model}/drift/reset`: the admin call that restarts a model's drift evidence."""

from service.auth.admin_route import admin_route
from service.auth.api_keys import KeyFile
from service.http.route import Route
from service.lifecycle import Lifecycle
from service.repository.served import Repository
from service.routes.schemas import DriftReset


def routes(repository: Repository, lifecycle: Lifecycle, keys: KeyFile) -> list[Route]:
    """The route, for requests with one of the admin `keys`."""

    async def reset_drift(model: str) -> DriftReset:
        """Restart each version's drift evidence without the traffic so far; the calibration data remain."""
        lifecycle.require_loaded()
        evidence: dict[str, float] = {}
        for version in repository.versions(model):
            served = repository.get(model, version)
            evidence[version] = served.drift.log10
            served.reset_drift()
        return DriftReset(model=model, evidence=evidence)

    return [admin_route("/v1/models/{model}/drift/reset", reset_drift, keys, {404: "Unknown model."})]
