"""JSON, parquet and lines: a fault concerns its row only. Leftovers and paths out of a folder are not read."""

import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from datafiles import (
    DataFileError,
    Fault,
    ImageFolder,
    as_image,
    as_key,
    as_text,
    class_folders,
    image_names,
    is_leftover,
    open_table,
    path_inside,
    printable,
    read_file,
    read_lines,
)

NOT_UTF8 = pa.array([b"fine", b"caf\xe9", None], pa.binary())


def kinds(path: Path, column: str) -> list[object]:
    values = [as_text(value) for (value,) in open_table(path).read([column])]
    return [value.kind if isinstance(value, Fault) else value for value in values]


@pytest.mark.parametrize(
    ("kind", "encoded"),
    [
        (pa.string(), False),
        (pa.string(), True),
        (pa.large_string(), False),
        (pa.large_string(), True),
        (pa.string_view(), False),
    ],
)
def test_parquet_strings_that_are_not_utf8_are_faults_of_their_rows(
    kind: pa.DataType, encoded: bool, tmp_path: Path
) -> None:
    to = pa.string() if pa.types.is_string_view(kind) else kind
    buffers = NOT_UTF8.cast(pa.large_binary() if to == pa.large_string() else pa.binary()).buffers()
    column = pa.Array.from_buffers(to, 3, buffers)
    if pa.types.is_string_view(kind):
        column = column.cast(kind)
    pq.write_table(pa.table({"text": column.dictionary_encode() if encoded else column}), tmp_path / "t.parquet")
    assert kinds(tmp_path / "t.parquet", "text") == ["fine", "encoding", "missing"]


def test_bytes_are_texts_if_they_are_utf8_and_keys_in_any_case(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": NOT_UTF8}), tmp_path / "t.parquet")
    assert kinds(tmp_path / "t.parquet", "text") == ["fine", "encoding", "missing"]
    assert [as_key(value) for (value,) in open_table(tmp_path / "t.parquet").read(["text"])] == [
        "fine",
        "caf\ufffd",
        None,
    ]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_json_lines_and_plain_lines_are_read_in_any_encoding_and_with_any_line_end(
    encoding: str, line_end: str, tmp_path: Path
) -> None:
    texts = ["null", "NA", "caf\u00e9", "a\u2028b", "x"]
    (tmp_path / "t.txt").write_bytes(line_end.join(texts).encode(encoding))
    rows = [json.dumps({"text": text, "label": 1}, ensure_ascii=False) for text in texts]
    (tmp_path / "t.jsonl").write_bytes((line_end.join(rows) + line_end).encode(encoding))
    (tmp_path / "t.json").write_bytes(("[" + f",{line_end}".join(rows) + "]").encode(encoding))
    for name in ("t.txt", "t.jsonl", "t.json"):
        assert kinds(tmp_path / name, "text") == texts, name
        assert open_table(tmp_path / name).count() == 5


def test_a_number_in_json_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text('{"text": 7}\n{"text": null}\n\n[1]\n{"text": "\\ud83d"}\n')
    assert kinds(tmp_path / "t.jsonl", "text") == ["malformed", "missing", "malformed", "encoding"]


LEFTOVERS = """._a.png|.DS_Store|Thumbs.db|desktop.ini|Desktop.ini|__MACOSX|.ipynb_checkpoints|@eaDir|.git|#recycle
|$RECYCLE.BIN|lost+found|__pycache__|System Volume Information|.Trash-1000"""


@pytest.mark.parametrize("name", LEFTOVERS.replace("\n", "").split("|"))
def test_leftovers_are_neither_images_nor_classes(name: str, tmp_path: Path) -> None:
    assert is_leftover(name)
    for image in ("cat/1.png", "dog/1.png", f"cat/{name}.png", f"{name}/1.png", f"dog/{name}/1.png", "notes.txt"):
        (tmp_path / image).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / image).write_bytes(b"x")
    images = ["/".join(names) for names in ImageFolder.open(tmp_path).names]
    assert [image for image in images if f"{name}.png" not in image] == ["cat/1.png", "dog/1.png"]
    assert set(class_folders(tmp_path)) == {"cat", "dog"}


def test_links_to_folders_are_folders_except_for_runs_over_files(tmp_path: Path) -> None:
    for image in ("elsewhere/1.png", "elsewhere/deep/2.png", "photos/dog/3.png"):
        (tmp_path / image).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / image).write_bytes(b"x")
    photos = tmp_path / "photos"
    (photos / "cat").symlink_to(tmp_path / "elsewhere")
    (photos / "dog" / "more").symlink_to(tmp_path / "elsewhere" / "deep")
    images = ["/".join(names) for names in ImageFolder.open(photos).names]
    assert images == ["cat/1.png", "cat/deep/2.png", "dog/3.png", "dog/more/2.png"]
    assert class_folders(photos) == {"cat": 2, "dog": 2}
    assert list(image_names(photos)) == [("dog", "3.png")]


@pytest.mark.parametrize(("target", "message"), [(".", "to a folder above it"), ("absent", "to nothing")])
def test_links_to_folders_that_cannot_be_followed_are_refused(target: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "photos" / "cat").mkdir(parents=True)
    (tmp_path / "photos" / "dog").symlink_to(tmp_path / "photos" / target)
    with pytest.raises(DataFileError, match=message):
        ImageFolder.open(tmp_path / "photos")


def test_a_path_in_a_table_is_read_inside_the_tables_folder_only(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "a.png").write_bytes(b"a")
    (tmp_path / "secret.png").write_bytes(b"s")
    (folder / "link.png").symlink_to(tmp_path / "secret.png")
    (folder / "inside.png").symlink_to("sub/a.png")
    for good in ("sub/a.png", "./sub/a.png", "sub\\a.png", "inside.png", str(folder / "sub/a.png"), "sub/../sub/a.png"):
        assert path_inside(folder, good) == folder / "sub" / "a.png", good
    for bad in (
        "../secret.png",
        str(tmp_path / "secret.png"),
        "link.png",
        "absent.png",
        "a\0b",
        "x" * 5000,
        "/etc/passwd",
    ):
        assert isinstance(path_inside(folder, bad), Fault), bad
    assert isinstance(as_image({"bytes": None, "path": "../secret.png"}, folder), Fault)
    assert as_image({"bytes": b"b", "path": "../secret.png"}, folder) == b"b"


def test_a_named_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.png")
    assert read_file(tmp_path / "a.png") == Fault("file", "It is no regular file.")


def test_names_of_lines_keep_their_commas_and_lose_line_ends_marks_and_blank_lines(tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_bytes("\ufefftench, Tinca tinca\r\n\r\n caf\u00e9 \r\nlast".encode())
    assert read_lines(tmp_path / "labels.txt") == ["tench, Tinca tinca", " caf\u00e9 ", "last"]
    (tmp_path / "labels.txt").write_bytes(b"caf\xe9\n")
    with pytest.raises(DataFileError, match=r"line 1 is no text.*byte 0xe9"):
        read_lines(tmp_path / "labels.txt")


def test_names_are_printable_whatever_they_hold() -> None:
    assert printable(os.fsdecode(b"caf\xe9\x1b[2J.png")) == "caf\\xe9\\x1b[2J.png"
    assert printable("caf\u00e9") == "caf\u00e9"
