"""Interrupted runs resume and write identical rows; a different run into the same folder is refused."""

import json
import re
import signal
from pathlib import Path

import pytest

from tests.service.support.offline_runs import begin, rows, score
from tests.support.tiny_bundle import make_tiny_bundle
from tests.support.tiny_text_bundle import make_tiny_text_bundle, tiny_texts
from tests.support.waiting import until

pytestmark = pytest.mark.usefixtures("restored_logging")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_text_bundle(tmp_path_factory.mktemp("models"))


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    path = tmp_path / "texts.txt"
    path.write_text("\n".join(tiny_texts(95)))
    return path


def test_after_sigkill_a_resumed_run_has_the_rows_of_an_uninterrupted_one(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "many.txt"
    source.write_text("\n".join(["", *tiny_texts(2_500)]))
    flags = ("--part-size", "25", "--scores", "msp,energy")
    killed = begin(source, tmp_path / "killed", *flags, model=model)
    until(lambda: len(list((tmp_path / "killed").glob("part-*"))) >= 3 or killed.poll() is not None)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "killed").glob("part-*")}
    assert 3 <= len(before) < 101, "killed in the middle"

    assert score(source, tmp_path / "killed", *flags, model=model) == 0
    assert f"{25 * len(before):,} of 2,501 inputs are in" in capsys.readouterr().err
    assert score(source, tmp_path / "uninterrupted", *flags, model=model) == 0
    assert rows(tmp_path / "killed") == rows(tmp_path / "uninterrupted")
    assert (tmp_path / "killed" / "_run.json").read_text() == (tmp_path / "uninterrupted" / "_run.json").read_text()
    after = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "killed").glob("part-*")}
    assert before.items() <= after.items(), "existing parts are not computed again"


def test_a_second_run_into_a_folder_is_refused_until_the_first_one_ends(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "many.txt"
    source.write_text("\n".join(tiny_texts(2_500)))
    first = begin(source, tmp_path / "out", "--part-size", "25", model=model)
    until(lambda: (tmp_path / "out" / "_run.json").exists() or first.poll() is not None)
    first.send_signal(signal.SIGSTOP)
    for flags in (["--part-size", "25"], ["--part-size", "25", "--overwrite"], ["--part-size", "50"]):
        assert score(source, tmp_path / "out", *flags, model=model) == 2
        assert f"Another run of score-dataset writes to {tmp_path / 'out'}" in capsys.readouterr().err
    first.send_signal(signal.SIGKILL)
    first.communicate()
    assert score(source, tmp_path / "out", "--part-size", "25", model=model) == 0
    assert len(rows(tmp_path / "out")) == 2_500
    # A refused run keeps no lock either.
    assert score(source, tmp_path / "out", "--part-size", "50", model=model) == 2
    assert score(source, tmp_path / "out", "--part-size", "50", "--overwrite", model=model) == 0


def test_only_missing_parts_are_computed(model: Path, texts: Path, tmp_path: Path) -> None:
    assert score(texts, tmp_path / "out", "--part-size", "10", model=model) == 0
    before = rows(tmp_path / "out")
    for part in (2, 3, 7, 9):
        (tmp_path / "out" / f"part-{part:06}.parquet").unlink()
    assert score(texts, tmp_path / "out", "--part-size", "10", model=model) == 0
    assert rows(tmp_path / "out") == before
    assert len(before) == 95


@pytest.mark.parametrize(
    ("flags", "difference"),
    [
        (("--alpha", "0.2"), "alpha: 0.05 in the folder, 0.2 requested"),
        (("--scores", "msp,energy"), r"scores: \['msp'\] in the folder, \['msp', 'energy'\] requested"),
        (("--part-size", "11"), "part_size: 10 in the folder, 11 requested"),
        (("--max-batch", "4"), "batch: 8 in the folder, 4 requested"),
        (("--max-text-chars", "10"), "max_text_chars: 100000 in the folder, 10 requested"),
    ],
)
def test_resuming_with_different_terms_is_refused_with_the_differences(
    flags: tuple[str, ...],
    difference: str,
    model: Path,
    texts: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert score(texts, tmp_path / "out", "--part-size", "10", model=model) == 0
    before = rows(tmp_path / "out")
    assert score(texts, tmp_path / "out", "--part-size", "10", *flags, model=model) == 2
    assert re.search(difference, capsys.readouterr().err)
    assert rows(tmp_path / "out") == before


def test_another_model_or_a_changed_source_is_refused(
    model: Path, texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert score(texts, tmp_path / "out", model=model) == 0
    other = make_tiny_text_bundle(tmp_path / "others", version="2", seed=1)
    assert score(texts, tmp_path / "out", model=other) == 2
    refusal = capsys.readouterr().err
    assert "version: 1 in the folder, 2 requested" in refusal
    assert "bundle_sha256" in refusal
    texts.write_text(texts.read_text().replace("the", "teh"))
    assert score(texts, tmp_path / "out", model=model) == 2
    assert "source fingerprint" in capsys.readouterr().err


def test_overwrite_removes_the_rows_of_another_run(model: Path, texts: Path, tmp_path: Path) -> None:
    assert score(texts, tmp_path / "out", "--part-size", "10", model=model) == 0
    assert score(texts, tmp_path / "out", "--alpha", "0.2", "--overwrite", model=model) == 0
    assert len(rows(tmp_path / "out")) == 95
    assert json.loads((tmp_path / "out" / "_run.json").read_text())["terms"]["alpha"] == 0.2


def test_a_folder_with_other_files_is_refused_and_not_changed(
    model: Path, texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert score(texts, tmp_path, "--overwrite", model=model) == 2
    assert "holds files, but no run of score-dataset" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["texts.txt"]


def test_a_complete_run_prints_its_summary_again(
    model: Path, texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert score(texts, tmp_path / "out", model=model) == 0
    printed = capsys.readouterr().out
    assert score(texts, tmp_path / "out", model=model) == 0
    assert capsys.readouterr().out == printed


def test_an_unwritable_output_folder_is_named(
    texts: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert score(texts, texts / "out", model=model) == 1
    assert "cannot be written" in capsys.readouterr().err


def test_an_image_model_does_not_take_texts(texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert score(texts, tmp_path / "out", model=make_tiny_bundle(tmp_path / "models")) == 2
    assert "takes images" in capsys.readouterr().err
