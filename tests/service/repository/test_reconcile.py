"""The decisions of the reloader, from snapshots alone."""

from collections.abc import Collection, Mapping

import pytest

from bundle import MANIFEST_NAME
from service.repository.reconcile import (
    Action,
    Forget,
    Load,
    Refuse,
    missing_entries,
    reconcile,
    settled_entries,
)
from service.repository.snapshot import TRAFFIC_NAME, Snapshot


def snapshot(state: int = 0, *, manifest: bool = True) -> Snapshot:
    """A snapshot that differs from those of any other `state`."""
    name = MANIFEST_NAME if manifest else "model.onnx"
    return Snapshot(((name, state, 1, 1, 1),))


def decide(
    scan: Mapping[str, Snapshot],
    *,
    missing: Collection[str] = (),
    last_attempts: Mapping[str, Snapshot] | None = None,
    unloaded: Collection[str] = (),
) -> list[Action]:
    """The actions of a scan whose entries are all settled."""
    return reconcile(scan, settled=scan, missing=missing, last_attempts=last_attempts or {}, unloaded=unloaded)


def test_a_new_bundle_is_loaded() -> None:
    assert decide({"tiny/1": snapshot()}) == [Load("tiny/1", snapshot())]


def test_an_entry_is_loaded_or_refused_once_for_each_state_of_its_files() -> None:
    attempts = {"tiny/1": snapshot(1), "tiny/2": snapshot(1)}
    assert decide({"tiny/1": snapshot(1), "tiny/2": snapshot(2)}, last_attempts=attempts) == [
        Load("tiny/2", snapshot(2))
    ]


def test_a_folder_without_a_manifest_waits() -> None:
    assert decide({"tiny/1": snapshot(manifest=False)}) == []


def test_a_bundle_one_level_too_high_is_refused_with_the_remedy() -> None:
    (action,) = decide({"tiny": snapshot()})
    assert isinstance(action, Refuse)
    assert (action.entry, action.snapshot) == ("tiny", snapshot())
    assert "belongs one level deeper, in tiny/<version>/" in action.reason


def test_an_unloaded_model_is_not_loaded_while_others_are() -> None:
    scan = {"other/1": snapshot(), "tiny/1": snapshot(), "tiny/2": snapshot()}
    assert decide(scan, unloaded={"tiny"}) == [Load("other/1", snapshot())]


def test_traffic_rules_come_first_and_removals_last() -> None:
    scan = {"a/1": snapshot(), TRAFFIC_NAME: snapshot(manifest=False), "z/1": snapshot()}
    actions = decide(scan, missing=["b/1"])
    assert [action.entry for action in actions] == [TRAFFIC_NAME, "a/1", "z/1", "b/1"]


def test_an_entry_that_is_not_settled_is_left_alone() -> None:
    assert reconcile({"tiny/1": snapshot()}, settled=[], missing=[], last_attempts={}) == []


@pytest.mark.parametrize(
    ("scan", "unless_last"),
    [
        ({}, False),
        ({"other/1": snapshot()}, False),
        ({"tiny/2": snapshot(manifest=False)}, False),
        ({"tiny/2": snapshot()}, True),
    ],
    ids=["nothing", "another model", "an incomplete bundle", "another version"],
)
def test_a_missing_version_stays_as_the_last_only_if_a_bundle_could_replace_it(
    scan: Mapping[str, Snapshot], unless_last: bool
) -> None:
    assert decide(scan, missing=["tiny/1"], last_attempts=scan) == [Forget("tiny/1", unless_last)]


def test_only_entries_that_two_scans_agree_on_are_settled() -> None:
    last_scan = {"same/1": snapshot(1), "written/1": snapshot(1), "gone/1": snapshot(1)}
    scan = {"same/1": snapshot(1), "written/1": snapshot(2), "new/1": snapshot(1)}
    assert settled_entries(scan, last_scan) == ["same/1"]


def test_only_entries_that_two_scans_lack_are_missing() -> None:
    entries = ["both/1", "last/1", "now/1", "neither/1"]
    scan = {"both/1": snapshot(), "now/1": snapshot()}
    last_scan = {"both/1": snapshot(), "last/1": snapshot()}
    assert missing_entries(entries, scan, last_scan) == ["neither/1"]
