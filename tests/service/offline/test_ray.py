"""A Ray cluster gives the rows of one machine."""

import shutil
from pathlib import Path

import pytest

from tests.service.support.offline_runs import begin, rows, score
from tests.support.tiny_text_bundle import make_tiny_text_bundle, tiny_texts

pytestmark = pytest.mark.usefixtures("logging_as_it_was")


def test_a_cluster_gives_the_same_files_and_goes_on_where_one_machine_stopped(tmp_path: Path) -> None:
    model = make_tiny_text_bundle(tmp_path / "models")
    source = tmp_path / "texts.txt"
    source.write_text("\n".join(["", *tiny_texts(94)]))
    assert score(source, tmp_path / "here", "--part-size", "10", model=model) == 0
    shutil.copytree(tmp_path / "here", tmp_path / "there")
    for part in (0, 2, 5, 6, 9):
        (tmp_path / "there" / f"part-{part:06}.parquet").unlink()
    cluster = begin(source, tmp_path / "there", "--part-size", "10", "--ray", "local", model=model)
    _, said = cluster.communicate(timeout=120)
    assert cluster.returncode == 0, said
    assert "50 of 95 inputs are in" in said
    assert len(rows(tmp_path / "there")) == 95
    for part in (tmp_path / "here").iterdir():
        assert part.read_bytes() == (tmp_path / "there" / part.name).read_bytes(), part.name


def test_an_address_where_no_cluster_answers_is_named_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = make_tiny_text_bundle(tmp_path / "models")
    source = tmp_path / "texts.txt"
    source.write_text("the ball")
    assert score(source, tmp_path / "out", "--ray", "127.0.0.1:1", model=model) == 1
    assert "No Ray cluster answers at 127.0.0.1:1" in capsys.readouterr().err
