"""A Ray cluster writes the same rows as one machine."""

import shutil
from pathlib import Path

import pytest

from tests.service.support.offline_runs import begin, rows, score
from tests.support.tiny_text_bundle import make_tiny_text_bundle, tiny_texts

pytestmark = pytest.mark.usefixtures("restored_logging")


def test_a_cluster_writes_the_same_files_and_resumes_the_run_of_one_machine(tmp_path: Path) -> None:
    model = make_tiny_text_bundle(tmp_path / "models")
    source = tmp_path / "texts.txt"
    source.write_text("\n".join(["", *tiny_texts(94)]))
    assert score(source, tmp_path / "machine", "--part-size", "10", model=model) == 0
    shutil.copytree(tmp_path / "machine", tmp_path / "cluster")
    for part in (0, 2, 5, 6, 9):
        (tmp_path / "cluster" / f"part-{part:06}.parquet").unlink()
    cluster = begin(source, tmp_path / "cluster", "--part-size", "10", "--ray", "local", model=model)
    _, printed = cluster.communicate(timeout=120)
    assert cluster.returncode == 0, printed
    assert "50 of 95 inputs are in" in printed
    assert len(rows(tmp_path / "cluster")) == 95
    for part in (tmp_path / "machine").iterdir():
        assert part.read_bytes() == (tmp_path / "cluster" / part.name).read_bytes(), part.name


def test_an_address_without_a_cluster_is_an_error_within_seconds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = make_tiny_text_bundle(tmp_path / "models")
    source = tmp_path / "texts.txt"
    source.write_text("the ball")
    assert score(source, tmp_path / "out", "--ray", "127.0.0.1:1", model=model) == 1
    assert "No Ray cluster answers at 127.0.0.1:1" in capsys.readouterr().err
