"""CSV files: rows are read back as written, in every dialect, line end and encoding that spreadsheets use."""

import codecs
import csv
import io
import pickle
import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from datafiles import DataFileError, Fault, as_text, open_table, text_table

CELLS = st.text(
    st.one_of(
        st.sampled_from(
            [",", ";", "\t", "|", '"', "'", "\n", "\r", " ", "0", "a", "\u00e9", "\u2028", "\x85", "\x0b", "="]
        ),
        st.characters(exclude_categories=["Cs"], exclude_characters="\0\U0010ffff"),
    ),
    max_size=12,
)
ODD = "\u00e9\U0001f600"
FILES = {"utf-8": b"", "utf-8-sig": b"", "utf-16-le": codecs.BOM_UTF16_LE, "utf-16-be": codecs.BOM_UTF16_BE}


def written(
    path: Path,
    rows: list[list[str]],
    separator: str = ",",
    line_end: str = "\r\n",
    encoding: str = "utf-8",
    quoting: int = csv.QUOTE_MINIMAL,
    declared: bool = False,
) -> Path:
    text = io.StringIO(newline="")
    if declared:
        text.write(f"sep={separator}{line_end}")
    csv.writer(text, delimiter=separator, lineterminator=line_end, quoting=quoting).writerows(rows)
    path.write_bytes(FILES[encoding] + text.getvalue().encode(encoding))
    return path


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.integers(1, 3).flatmap(lambda n: st.lists(st.lists(CELLS, min_size=n, max_size=n), min_size=1, max_size=6)),
    separator=st.sampled_from(",;\t|"),
    line_end=st.sampled_from(["\n", "\r\n", "\r"]),
    encoding=st.sampled_from(sorted(FILES)),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    declared=st.booleans(),
)
def test_what_a_program_writes_is_read_back_equal_in_every_dialect(
    tmp_path: Path,
    rows: list[list[str]],
    separator: str,
    line_end: str,
    encoding: str,
    quoting: int,
    declared: bool,
) -> None:
    if quoting == csv.QUOTE_MINIMAL:
        # Python's writer quotes only the line ends that it writes itself.
        rows = [[re.sub(r"[\r\n]", line_end[0], cell) for cell in row] for row in rows]
    header = ["text", "label", "id"][: len(rows[0])]
    path = written(tmp_path / "t.csv", [header, *rows], separator, line_end, encoding, quoting, declared)
    table = open_table(path, ["text"])
    assert list(table.columns) == header
    assert [list(row) for row in table.read(header)] == rows
    assert table.count() == len(rows)


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", sorted(FILES))
def test_reading_starts_at_any_row(
    encoding: str, line_end: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_table, "MARK_EVERY", 4)
    rows = [[f'{ODD * (index % 5)} "{index}",{line_end}x', str(index)] for index in range(30)]
    path = written(tmp_path / "t.csv", [["text", "id"], *rows], ";", line_end, encoding)
    table = pickle.loads(pickle.dumps(open_table(path)))
    assert table.count() == 30
    for start in (0, 1, 3, 4, 17, 29, 30, 40):
        assert [list(row) for row in table.read(["text", "id"], start)] == rows[start:], start


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64])
def test_lines_are_the_same_whatever_the_size_of_the_parts_that_are_read(
    size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("datafiles.lines._CHUNK", size)
    rows = [["a\r\nb", "1"], ["\u00e9\u20ac\U0001f600", "2"], ["", "3"]]
    for line_end in ("\r\n", "\r", "\n"):
        path = written(tmp_path / "t.csv", [["text", "id"], *rows], ",", line_end, "utf-16-le")
        assert [list(row) for row in open_table(path).read(["text", "id"])] == rows


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("text;label\nfirst, second;a\n", [("first, second", "a")]),
        ("label;text, in English;text\na;b, c;d\n", [("d", "a")]),
        ("id,text,label\n1,a;b;c;d,x\n2,e;f;g;h,y\n", [("a;b;c;d", "x"), ("e;f;g;h", "y")]),
        ('"label"\t"text"\na\t"1,5"\n', [("1,5", "a")]),
        ("text,label,,\nhello,a,,\n", [("hello", "a")]),
        ("\n\n text , label \nhello,a\n", [("hello", "a")]),
    ],
)
def test_the_separator_is_that_of_the_header_and_of_most_rows(
    content: str, expected: list[tuple[str, str]], tmp_path: Path
) -> None:
    (tmp_path / "t.csv").write_text(content)
    assert list(open_table(tmp_path / "t.csv", ["text", "label"]).read(["text", "label"])) == expected


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_commas_in_a_file_of_one_column_are_part_of_its_texts(line_end: str, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(f"text{line_end}well, then; so{line_end}bye{line_end}", newline="")
    assert list(open_table(tmp_path / "t.csv").read(["text"])) == [("well, then; so",), ("bye",)]


def test_texts_that_look_like_nulls_numbers_or_truth_values_stay_as_they_are(tmp_path: Path) -> None:
    texts = [
        "null",
        "NULL",
        "NA",
        "N/A",
        "#N/A",
        "None",
        "nan",
        "NaN",
        "-inf",
        "007",
        "12",
        "1e5",
        "1_000",
        "TRUE",
        " a ",
    ]
    path = written(tmp_path / "t.csv", [["text", "id"], *([text, "0"] for text in texts)])
    assert [text for (text,) in open_table(path).read(["text"])] == texts


def test_a_row_with_too_many_cells_is_a_fault_of_that_row(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("id,text\n1,hello, world\n2,bye,,\n3\n")
    first, second, third = (as_text(text) for (text,) in open_table(tmp_path / "t.csv").read(["text"]))
    assert isinstance(first, Fault)
    assert "3 cells, the header 2" in first.detail
    assert second == "bye"
    assert isinstance(third, Fault)
    assert third.kind == "missing"


def test_bytes_of_another_encoding_are_a_fault_of_their_row_and_name_the_byte(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes("text\ncaf\u00e9\nplain\n".encode("cp1252"))
    first, second = (as_text(text) for (text,) in open_table(tmp_path / "t.csv").read(["text"]))
    assert isinstance(first, Fault)
    assert "byte 0xe9 after 3 characters" in first.detail
    assert second == "plain"


def test_a_quote_that_is_never_closed_is_refused_with_the_place_of_its_row(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text('text,id\nfine,1\n"open,2\nlost,3\n')
    with pytest.raises(DataFileError, match="quote is not closed, in the row that begins at byte 15"):
        list(open_table(tmp_path / "t.csv").read(["text"]))
