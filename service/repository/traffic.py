"""Traffic control: which version answers a request that names none, and which versions shadow it."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from service.repository.model import Model
from service.repository.traffic_rules import LATEST, TrafficRule


@dataclass(frozen=True, slots=True)
class Traffic:
    """The versions that get a model's requests without a version: `percent` to `canary`, the rest to `serve`.

    All versions in `shadows` score these requests as well.
    """

    serve: Model
    canary: Model | None = None
    percent: float = 0.0
    shadows: tuple[Model, ...] = ()

    def choose(self, request_id: str | None) -> Model:
        """Return the version that answers; a request that is repeated under its id gets the same version."""
        if self.canary is None or request_id is None:
            return self.serve
        return self.canary if 100 * _bucket(self.serve.name, request_id) < self.percent else self.serve

    def shares(self) -> dict[tuple[str, str], float]:
        """Return the share of the requests in [0, 1], by version and role (serve, canary, shadow)."""
        share = self.percent / 100 if self.canary else 0.0
        shares = {(self.serve.version, "serve"): 1 - share}
        if self.canary:
            shares[self.canary.version, "canary"] = share
        return shares | {(shadow.version, "shadow"): 1.0 for shadow in self.shadows}


def traffic_of(rule: TrafficRule, versions: Mapping[str, Model], previous: str) -> Traffic:
    """Apply `rule` to the served versions of a model.

    "latest" is the latest version that is neither canary nor shadow, so that a version exported for a trial does not
    become the one that answers. A version that the rule names but that is not served is left out; if it is `serve`, the
    previous version continues to answer.

    Args:
        rule: The model's traffic rule.
        versions: The served versions, oldest first; at least one.
        previous: The version that has answered so far; may be empty or no longer served.
    """
    canary = versions.get(rule.canary.version) if rule.canary else None
    shadows = tuple(versions[version] for version in rule.shadow if version in versions)
    on_trial = {*rule.shadow, *([rule.canary.version] if rule.canary else [])}
    newest_first = list(versions)[::-1]
    latest = next((version for version in newest_first if version not in on_trial), newest_first[0])
    if rule.serve in versions:
        serve = rule.serve
    elif previous in versions and rule.serve != LATEST:
        serve = previous
    else:
        serve = latest
    return Traffic(versions[serve], canary, rule.canary.percent if rule.canary else 0.0, shadows)


def _bucket(model: str, request_id: str) -> float:
    """Hash a request id to a number in [0, 1), uniform over ids and independent between models."""
    digest = hashlib.blake2b(f"{model} {request_id}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64
