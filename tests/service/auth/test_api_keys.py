"""The key file: the owners of keys, changes of the file, and mistakes in it."""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from service.auth import new_key
from service.auth.api_keys import KeyFile, KeysError, digest_of


class Clock:
    """A clock that the test moves. It does not start at 0, because monotonic clocks do not."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class FileAccess:
    """Counts how often a file was checked and read."""

    stats: int = 0
    reads: int = 0


@pytest.fixture
def access(monkeypatch: pytest.MonkeyPatch) -> FileAccess:
    count, stat, read_text = FileAccess(), Path.stat, Path.read_text

    def counted_stat(path: Path, **options: Any) -> os.stat_result:
        count.stats += 1
        return stat(path, **options)

    def counted_read_text(path: Path, **options: Any) -> str:
        count.reads += 1
        return read_text(path, **options)

    monkeypatch.setattr(Path, "stat", counted_stat)
    monkeypatch.setattr(Path, "read_text", counted_read_text)
    return count


def line(name: str, key: str) -> str:
    return f"{name} sha256:{digest_of(key)}\n"


def test_a_key_has_the_owner_of_its_line_and_an_unknown_key_none(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("# clients\n\n" + line("alice", "a") + line("bob", "b").replace("\n", "  # until May\n"))
    keys = KeyFile(file)
    assert [keys.name_of(key) for key in ("a", "b", "c", "", digest_of("a"), "ä")] == ["alice", "bob", *[None] * 4]


def test_a_name_may_have_an_old_key_and_a_new_one(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(line("alice", "old") + line("alice", "new"))
    keys = KeyFile(file)
    assert (keys.name_of("old"), keys.name_of("new")) == ("alice", "alice")


def test_a_changed_file_counts_after_a_second(tmp_path: Path) -> None:
    file, clock = tmp_path / "keys", Clock()
    file.write_text(line("alice", "a"))
    keys = KeyFile(file, clock)
    file.write_text(line("robert", "b"))
    assert keys.name_of("a") == "alice"
    clock.now += 0.99
    assert (keys.name_of("a"), keys.name_of("b")) == ("alice", None)
    clock.now = 1001.0
    assert (keys.name_of("a"), keys.name_of("b")) == (None, "robert")


@pytest.mark.parametrize(("name", "modified"), [("bobby", 1), ("robert", 0)], ids=["time", "size"])
def test_a_change_of_the_time_or_the_size_alone_is_detected(tmp_path: Path, name: str, modified: int) -> None:
    file, clock = tmp_path / "keys", Clock()
    file.write_text(line("alice", "a"))
    os.utime(file, (0, 0))
    keys = KeyFile(file, clock)
    file.write_text(line(name, "b"))
    os.utime(file, (0, modified))
    clock.now += 1
    assert keys.name_of("b") == name


def test_the_file_is_checked_at_most_once_a_second_and_only_when_a_key_is_presented(
    tmp_path: Path, access: FileAccess
) -> None:
    file, clock = tmp_path / "keys", Clock()
    file.write_text(line("alice", "a"))
    keys = KeyFile(file, clock)
    assert access.stats == 1
    clock.now += 10
    assert access.stats == 1
    for number in range(1, 4):
        for _ in range(5):
            keys.name_of("a")
        clock.now += 1
        assert access.stats == 1 + number


def test_the_file_is_read_once_and_again_only_after_a_change(tmp_path: Path, access: FileAccess) -> None:
    file, clock = tmp_path / "keys", Clock()
    file.write_text(line("alice", "a"))
    with capture_logs() as lines:
        keys = KeyFile(file, clock)
        for reads in (1, 2):
            for _ in range(3):
                clock.now += 1
                keys.name_of("a")
                assert access.reads == reads
            file.write_text(line("alice", "a") + line("bob", f"{reads}"))
    assert [entry["event"] for entry in lines] == ["keys read"] * 2
    assert [entry["clients"] for entry in lines] == [["alice"], ["alice", "bob"]]


def test_a_mounted_secret_is_read_again_when_its_symlink_changes(tmp_path: Path) -> None:
    for version, name in (("1", "alice"), ("2", "bobby")):
        (tmp_path / version).write_text(line(name, "k"))
        os.utime(tmp_path / version, (0, 0))
    file, clock = tmp_path / "keys", Clock()
    file.symlink_to(tmp_path / "1")
    keys = KeyFile(file, clock)
    file.unlink()
    file.symlink_to(tmp_path / "2")
    clock.now += 1
    assert keys.name_of("k") == "bobby"


@pytest.mark.parametrize("content", ["ood_secret\n", None, b"\xff"], ids=["malformed", "missing", "not UTF-8"])
def test_a_file_that_becomes_wrong_keeps_the_old_keys_and_is_logged_once(
    tmp_path: Path, content: str | bytes | None
) -> None:
    file, clock = tmp_path / "keys", Clock()
    file.write_text(line("alice", "a"))
    keys = KeyFile(file, clock, setting="OOD_ADMIN_KEYS_FILE")
    if content is None:
        file.unlink()
    else:
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    clock.now += 1
    with capture_logs() as lines:
        assert [keys.name_of("a") for _ in range(3)] == ["alice"] * 3
    (error,) = lines
    assert (error["event"], error["log_level"], error["setting"]) == (
        "keys reload failed",
        "error",
        "OOD_ADMIN_KEYS_FILE",
    )
    assert str(file) in error["reason"]
    assert "ood_secret" not in error["reason"]
    file.write_text(line("bob", "b") + line("carol", "c"))
    clock.now += 1
    assert (keys.name_of("a"), keys.name_of("c")) == (None, "carol")


def test_a_file_without_keys_is_logged_and_accepts_no_key(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("# nobody\n")
    with capture_logs() as lines:
        assert KeyFile(file).name_of("a") is None
    warnings = [entry for entry in lines if entry["log_level"] == "warning"]
    assert [(entry["event"], entry["file"]) for entry in warnings] == [("key file is empty", str(file))]


def test_a_file_with_keys_is_read_without_a_warning(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(line("alice", "a"))
    with capture_logs() as lines:
        KeyFile(file)
    assert [(entry["event"], entry["log_level"], entry["keys"]) for entry in lines] == [("keys read", "info", 1)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (line("alice", "a") + "ood_secret", "Line 2 of the key file .* is not `NAME sha256:HEX`"),
        ("a/b sha256:" + "0" * 64, "Line 1"),
        (line("alice", "a") + line("bob", "a"), "Line 2 .* gives bob the key of another name"),
        (None, "cannot be read: .* Set OOD_API_KEYS_FILE"),
    ],
)
def test_a_wrong_file_is_refused_with_the_line_number_but_not_its_content(
    tmp_path: Path, content: str | None, message: str
) -> None:
    file = tmp_path / "keys"
    if content is not None:
        file.write_text(content)
    with pytest.raises(KeysError, match=message) as error:
        KeyFile(file)
    assert "secret" not in str(error.value)


def test_a_new_key_is_accepted_with_the_line_that_was_printed_for_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert new_key.main(["alice"]) == 0
    printed = capsys.readouterr()
    key = re.search(r"ood_\S{43}", printed.err)
    assert key is not None
    assert key.group() not in printed.out
    (tmp_path / "keys").write_text(printed.out)
    assert KeyFile(tmp_path / "keys").name_of(key.group()) == "alice"


def test_a_new_key_for_an_invalid_name_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        new_key.main(["two words"])
    assert end.value.code == 2
    assert "a name is 1 to 64" in capsys.readouterr().err


def test_a_file_that_could_not_be_read_for_a_while_is_read_once_it_can_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, clock = tmp_path / "keys", Clock()
    file.write_text(line("alice", "a"))
    keys = KeyFile(file, clock)
    file.write_text(line("robert", "b"))
    read_text = Path.read_text

    def denied(path: Path, **_: Any) -> str:
        raise PermissionError(13, "Permission denied", str(path))

    with capture_logs() as lines:
        monkeypatch.setattr(Path, "read_text", denied)
        for _ in range(3):
            clock.now += 1
            assert keys.name_of("a") == "alice"
        # As after a chmod: neither the content nor its time changes.
        monkeypatch.setattr(Path, "read_text", read_text)
        clock.now += 1
        assert (keys.name_of("a"), keys.name_of("b")) == (None, "robert")
    assert [entry["event"] for entry in lines] == ["keys reload failed", "keys read"]
