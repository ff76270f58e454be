"""The key file: who a key belongs to, changes that count at once, mistakes that are told and lock nobody out."""

import os
import re
from pathlib import Path

import pytest

from service.auth import new_key
from service.auth.api_keys import KeyFile, KeysError, digest_of


class Clock:
    """A clock that the test moves."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def line(name: str, key: str) -> str:
    return f"{name} sha256:{digest_of(key)}\n"


def test_a_key_has_the_name_of_its_line_and_others_have_none(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("# clients\n\n" + line("alice", "a") + line("bob", "b").replace("\n", "  # until May\n"))
    keys = KeyFile(file)
    assert [keys.name_of(key) for key in ("a", "b", "c", "", digest_of("a"), "ä")] == ["alice", "bob", *[None] * 4]


def test_a_name_may_have_an_old_key_and_a_new_one(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(line("alice", "old") + line("alice", "new"))
    keys = KeyFile(file)
    assert (keys.name_of("old"), keys.name_of("new")) == ("alice", "alice")


def test_a_changed_file_counts_within_a_second_and_not_by_a_look_per_request(tmp_path: Path) -> None:
    file, clock = tmp_path / "keys", Clock()
    file.write_text(line("alice", "a"))
    keys = KeyFile(file, clock)
    file.write_text(line("bobby", "b"))
    assert keys.name_of("a") == "alice"
    clock.now = 1.0
    assert (keys.name_of("a"), keys.name_of("b")) == (None, "bobby")


def test_a_secret_mounted_as_a_link_is_followed_when_the_link_moves_on(tmp_path: Path) -> None:
    for version, name in (("1", "alice"), ("2", "bobby")):
        (tmp_path / version).write_text(line(name, "k"))
        os.utime(tmp_path / version, (0, 0))
    file, clock = tmp_path / "keys", Clock()
    file.symlink_to(tmp_path / "1")
    keys = KeyFile(file, clock)
    file.unlink()
    file.symlink_to(tmp_path / "2")
    clock.now = 1.0
    assert keys.name_of("k") == "bobby"


@pytest.mark.parametrize("content", ["ood_secret\n", None, b"\xff"])
def test_a_file_that_became_wrong_leaves_the_keys_as_they_were(tmp_path: Path, content: str | bytes | None) -> None:
    file, clock = tmp_path / "keys", Clock()
    file.write_text(line("alice", "a"))
    keys = KeyFile(file, clock)
    if content is None:
        file.unlink()
    else:
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    clock.now = 1.0
    assert keys.name_of("a") == "alice"
    file.write_text(line("bob", "b") + line("carol", "c"))
    clock.now = 2.0
    assert (keys.name_of("a"), keys.name_of("c")) == (None, "carol")


def test_a_file_without_keys_lets_nobody_in(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("# nobody\n")
    assert KeyFile(file).name_of("a") is None


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (line("alice", "a") + "ood_secret", "Line 2 of the key file .* is not `NAME sha256:HEX`"),
        ("a/b sha256:" + "0" * 64, "Line 1"),
        (line("alice", "a") + line("bob", "a"), "Line 2 .* gives bob the key of another name"),
        (None, "cannot be read: .* Set OOD_API_KEYS_FILE"),
    ],
)
def test_a_wrong_file_is_refused_with_its_line_and_without_its_content(
    tmp_path: Path, content: str | None, said: str
) -> None:
    file = tmp_path / "keys"
    if content is not None:
        file.write_text(content)
    with pytest.raises(KeysError, match=said) as error:
        KeyFile(file)
    assert "secret" not in str(error.value)


def test_a_new_key_opens_with_the_line_that_was_printed_for_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert new_key.main(["alice"]) == 0
    printed = capsys.readouterr()
    key = re.search(r"ood_\S{43}", printed.err)
    assert key is not None
    assert key.group() not in printed.out
    (tmp_path / "keys").write_text(printed.out)
    assert KeyFile(tmp_path / "keys").name_of(key.group()) == "alice"


def test_a_key_for_an_impossible_name_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        new_key.main(["two words"])
    assert end.value.code == 2
    assert "a name is 1 to 64" in capsys.readouterr().err
