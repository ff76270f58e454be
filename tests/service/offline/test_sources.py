"""Every kind of collection yields its inputs and keys in order, from any position on, and reads lazily."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pytest

from datafiles import lines, text_table
from service.errors import InputError
from service.inputs.payloads import Text
from service.offline import folder_source
from service.offline.errors import ModelUnusable, SourceUnusable
from service.offline.open_source import open_source
from service.offline.parts import map_in_order
from service.offline.source import Source, payload_of
from tests.service.support.offline_runs import parquet

ODD = 'a "quoted", \u00e9 text\nof two lines'
BYTES_AND_PATH = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def contents(source: Source, start: int = 0) -> list[tuple[object, object]]:
    """The keys, each with a text, bytes or the type of an error."""
    items = []
    for item in source.items(start):
        payload = payload_of(item)
        plain = (
            payload.text if isinstance(payload, Text) else payload.type if isinstance(payload, InputError) else payload
        )
        items.append((item.key, plain))
    return items


def opened(path: Path, modality: Literal["image", "text"] = "text", **names: str) -> Source:
    return open_source(path, modality, names.get("column"), names.get("key"))


def written(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_a_text_file_has_one_text_per_line(tmp_path: Path) -> None:
    source = opened(written(tmp_path / "t.txt", "\ufeffone\r\n\r\nthree\nfour".encode() + b"\n\xff\n"))
    assert contents(source) == [(0, "one"), (1, ""), (2, "three"), (3, "four"), (4, "undecodable-text")]
    assert source.identity.inputs == 5


def test_json_lines_have_texts_keys_and_errors_of_single_lines(tmp_path: Path) -> None:
    lines = [
        json.dumps({"text": ODD, "id": 7}),
        "{broken",
        '["a list"]',
        '{"text": 3, "id": "x"}',
        '{"id": "y"}',
        '{"text": "half \\ud83d"}',
    ]
    source = opened(written(tmp_path / "t.jsonl", "\n".join(lines)), key="id")
    assert contents(source) == [
        ("7", ODD),
        (None, "malformed-record"),
        (None, "malformed-record"),
        ("x", "malformed-record"),
        ("y", "empty-input"),
        (None, "undecodable-text"),
    ]


def test_csv_cells_may_have_quotes_and_line_breaks_and_rows_may_be_short(tmp_path: Path) -> None:
    quoted = ODD.replace('"', '""')
    content = f'\ufeffid,body\na,"{quoted}"\nb\n\nc,{"long " * 40_000}\n'.encode() + b"d,\xff\n"
    source = opened(written(tmp_path / "t.csv", content), column="body", key="id")
    assert contents(source) == [("a", ODD), ("b", "empty-input"), ("c", "long " * 40_000), ("d", "undecodable-text")]


def test_parquet_has_texts_by_rows_across_files_and_row_groups(tmp_path: Path) -> None:
    (tmp_path / "shards").mkdir()
    parquet(tmp_path / "shards" / "b.parquet", text=["3", None], n=[3, 4])
    parquet(tmp_path / "shards" / "a.parquet", row_group_size=2, text=["0", "1", "2"], n=[0, 1, 2])
    parquet(tmp_path / "shards" / "_metadata.parquet", other=[1])
    expected = [(0, "0"), (1, "1"), (2, "2"), (3, "3"), (4, "empty-input")]
    assert contents(opened(tmp_path / "shards")) == expected
    assert contents(opened(tmp_path / "shards", column="text", key="n")) == expected


@pytest.mark.parametrize(
    "column",
    [
        pa.array([b"x", None], pa.binary()),
        pa.array([b"x", None], pa.large_binary()),
        pa.array([{"bytes": b"x", "path": "x.png"}, None], BYTES_AND_PATH),
    ],
    ids=["binary", "large binary", "hugging face"],
)
def test_parquet_has_images_as_bytes_or_as_the_struct_of_hugging_face(column: pa.Array, tmp_path: Path) -> None:
    source = opened(parquet(tmp_path / "i.parquet", label=[1, 2], picture=column), "image")
    assert source.identity.column == "picture", "the only column that can hold images"
    assert contents(source) == [(0, b"x"), (1, "empty-input")]


def test_a_folder_has_its_images_by_path_and_a_vanished_image_is_an_error(tmp_path: Path) -> None:
    for name in ("b/2.png", "b/1.JPG", "a.webp", "b/notes.txt", "c/d/e.bmp"):
        written(tmp_path / "images" / name, name)
    source = opened(tmp_path / "images", "image")
    (tmp_path / "images" / "b" / "2.png").unlink()
    (tmp_path / "images" / "b" / "2.png").symlink_to("nowhere")
    assert contents(source) == [
        ("a.webp", b"a.webp"),
        ("b/1.JPG", b"b/1.JPG"),
        ("b/2.png", "unreadable-file"),
        ("c/d/e.bmp", b"c/d/e.bmp"),
    ]


@pytest.fixture(params=["lines", "jsonl", "csv", "parquet", "images"])
def collection(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, Literal["image", "text"]]:
    """Fifty inputs; those of text files have different lengths."""
    texts = [f'{index} "x",{"y" * (index * 7 % 11)}' for index in range(50)]
    if request.param == "lines":
        return written(tmp_path / "c.txt", "\n".join(texts)), "text"
    if request.param == "jsonl":
        return written(tmp_path / "c.jsonl", "\n".join(json.dumps({"text": text}) for text in texts)), "text"
    if request.param == "csv":
        cells = [text.replace('"', '""') + "\nsecond line" for text in texts]
        return written(tmp_path / "c.csv", "text\n" + "".join(f'"{cell}"\n' for cell in cells)), "text"
    if request.param == "parquet":
        return parquet(tmp_path / "c.parquet", row_group_size=7, text=texts), "text"
    for index in range(50):
        written(tmp_path / "c" / f"{index % 3}" / f"{index % 5}" / f"{index}.png", str(index))
    return tmp_path / "c", "image"


def test_reading_can_start_at_any_position(
    collection: tuple[Path, Literal["image", "text"]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder_source, "_MARK_EVERY", 4)
    monkeypatch.setattr(text_table, "MARK_EVERY", 4)
    source = opened(*collection)
    everything = contents(source)
    assert len(everything) == source.identity.inputs == 50
    for start in (0, 1, 4, 7, 21, 48, 49, 50, 60):
        assert contents(source, start) == everything[start:], start


def test_a_changed_collection_has_another_identity(
    collection: tuple[Path, Literal["image", "text"]],
) -> None:
    path, modality = collection
    before = opened(path, modality).identity
    assert opened(path, modality).identity == before
    if path.is_dir():
        (path / "0" / "0" / "0.png").rename(path / "0" / "0" / "zero.png")
    elif path.suffix == ".parquet":
        parquet(path, text=["another"] * 50)
    else:
        path.write_bytes(path.read_bytes().replace(b"49", b"490"))
    assert opened(path, modality).identity.inputs == 50
    assert opened(path, modality).identity != before


def test_a_line_beyond_the_limit_is_an_error_of_that_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "LONGEST_LINE", 64)
    source = opened(written(tmp_path / "t.txt", "short\n" + "x" * 1000 + "\nlast"))
    assert contents(source) == [(0, "short"), (1, "text-too-long"), (2, "last")]


def test_inputs_are_read_only_a_little_ahead_of_their_results() -> None:
    taken = 0

    def inputs() -> Iterator[int]:
        nonlocal taken
        for number in range(1000):
            taken += 1
            yield number

    for done, result in enumerate(map_in_order(lambda number: -number, inputs(), threads=3), 1):
        assert result == 1 - done
        assert taken - done <= 6


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("x.txt", "", "holds no inputs"),
        ("x.csv", "body\nhello", "no column 'text'; its columns are body"),
        ("x.jsonl", '{"body": "hello"}', "no column 'text'; its columns are body"),
        ("x.csv", "Text,id\nhello,1", r"no column 'text' \(did you mean 'Text'\?\)"),
        ("x.csv", "text,text\nhello,1", "has the column 'text' twice"),
        ("x.csv", 'text,id\n"hello,1\nlost,2\n', "a quote is not closed"),
        ("x.txt", b"\xff\xfe\x00\x00h\x00\x00\x00", "is UTF-32"),
        ("x.txt", b"\xff\xfeh\x00i", "is not valid UTF-16"),
        ("x.pdf", "hello", "of no kind that can be scored"),
        ("x.parquet", "not parquet", "cannot be read"),
        ("folder/notes.md", "hello", "holds neither parquet files nor images"),
    ],
)
def test_an_unsupported_source_is_refused_with_the_reason(
    name: str, content: str | bytes, reason: str, tmp_path: Path
) -> None:
    path = written(tmp_path / name, content)
    with pytest.raises(SourceUnusable, match=reason):
        opened(path.parent if name.startswith("folder") else path)


def test_an_ambiguous_or_unsuitable_column_is_refused_with_the_suitable_ones(tmp_path: Path) -> None:
    path = parquet(tmp_path / "x.parquet", title=["a"], body=["b"], n=[1])
    with pytest.raises(SourceUnusable, match=r"title, body could\. Name it with --column"):
        opened(path)
    with pytest.raises(SourceUnusable, match="'n' is int64, and this model takes texts"):
        opened(path, column="n")


def test_a_collection_of_the_other_modality_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelUnusable, match=r"takes images, and .* holds texts"):
        opened(written(tmp_path / "x.txt", "hello"), "image")
