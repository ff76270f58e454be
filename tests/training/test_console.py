"""Messages show what names of files hold instead of sending it to the terminal."""

import os

import pytest

from training.console import announce, console, output, progress_bars
from training.data import Problem
from training.data.problems import announce_left_out, describe_problems

NAME = os.fsdecode(b"\x1b[2Jcaf\xe9\x07\x9b31m [red]x[/red].png")


def test_messages_show_control_characters_and_markup_of_names(capsys: pytest.CaptureFixture[str]) -> None:
    announce(NAME)
    console.print(f"left out {NAME}", markup=False)
    output.print(NAME, markup=False)
    announce_left_out([Problem("data", 0, "is broken", NAME)], announce)
    with progress_bars() as bars:
        bars.report(NAME, 1, 2)
    printed = "".join(capsys.readouterr())
    assert "[red]x[/red].png" in printed
    assert "\\x1b[2Jcaf" in printed
    assert not {character for character in printed if not character.isprintable()} - {"\n"}


def test_rows_with_one_reason_are_on_one_line_and_files_have_lines_of_their_own() -> None:
    problems = [Problem("t.csv", row, "there is no label") for row in (0, 20)]
    problems += [Problem("photos", 3, "is empty", "photos/a.png"), Problem("t.csv", 40, "there is no label")]
    assert describe_problems(problems) == [
        "t.csv, rows 0, 20, 40: there is no label",
        "photos, row 3 (photos/a.png): is empty",
    ]


def test_a_thousand_lines_are_listed_and_the_others_counted() -> None:
    lines = describe_problems(Problem("photos", row, "is empty", f"{row}.png") for row in range(1234))
    assert len(lines) == 1001
    assert lines[-1] == "and 234 more"
