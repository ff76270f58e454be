"""Decides how the served models follow the repository's folder, from snapshots alone and without side effects."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from service.repository.snapshot import TRAFFIC_NAME, Snapshot, is_bundle, model_of


@dataclass(frozen=True, slots=True)
class Load:
    """Load the bundle `entry` and serve it, or read the rules of `traffic.yaml`."""

    entry: str
    snapshot: Snapshot


@dataclass(frozen=True, slots=True)
class Refuse:
    """Refuse `entry` because of `reason`."""

    entry: str
    snapshot: Snapshot
    reason: str


@dataclass(frozen=True, slots=True)
class Forget:
    """Stop serving `entry`, which no longer exists.

    With `unless_last` the entry stays if its model would have no version left and it is the one that answers: a bundle
    that should replace it exists, but could not be loaded or is not complete yet.
    """

    entry: str
    unless_last: bool


Action = Load | Refuse | Forget


def reconcile(
    scan: Mapping[str, Snapshot],
    *,
    settled: Iterable[str],
    missing: Iterable[str],
    last_attempts: Mapping[str, Snapshot],
    unloaded: Collection[str] = (),
) -> list[Action]:
    """Decide what to do after a scan.

    Args:
        scan: The snapshots of the repository's entries.
        settled: The entries to consider for loading.
        missing: The entries to forget.
        last_attempts: The snapshot with which each entry was last loaded or refused.
        unloaded: The names of models that must not be loaded.

    Returns:
        Actions in order: the traffic rules first, because they say which version may answer; then bundles; removals
        last, so that a model whose version is replaced is served throughout.
    """
    actions: list[Action] = []
    for entry in sorted(settled, key=lambda entry: entry != TRAFFIC_NAME):
        snapshot = scan.get(entry)
        if snapshot is None or last_attempts.get(entry) == snapshot or model_of(entry) in unloaded:
            continue
        if entry == TRAFFIC_NAME or snapshot.has_manifest:
            actions.append(attempt(entry, snapshot))
    complete = {model_of(entry) for entry, snapshot in scan.items() if snapshot.has_manifest}
    return [*actions, *(Forget(entry, unless_last=model_of(entry) in complete) for entry in missing)]


def attempt(entry: str, snapshot: Snapshot) -> Load | Refuse:
    """Load `entry`, or refuse it as a misplaced bundle."""
    if entry == TRAFFIC_NAME or is_bundle(entry):
        return Load(entry, snapshot)
    return Refuse(entry, snapshot, f"a bundle belongs one level deeper, in {entry}/<version>/; move it there")


def settled_entries(scan: Mapping[str, Snapshot], last_scan: Mapping[str, Snapshot]) -> list[str]:
    """The entries that did not change since the last scan; entries still being written have to wait."""
    return [entry for entry, snapshot in scan.items() if last_scan.get(entry) == snapshot]


def missing_entries(
    entries: Iterable[str], scan: Mapping[str, Snapshot], last_scan: Mapping[str, Snapshot]
) -> list[str]:
    """The `entries` that two scans in a row lack; an entry that is being replaced may be missing in one."""
    return [entry for entry in entries if entry not in scan and entry not in last_scan]
