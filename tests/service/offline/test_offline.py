"""score-dataset writes the rows that the HTTP API answers."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from PIL import Image

from tests.service.conftest import Live
from tests.service.support.offline_runs import ROOT, parquet, rows, score
from tests.service.support.pictures import animation, encoded, picture
from tests.service.support.texts import POLITICS, SPORTS
from tests.support.tiny_bundle import tiny_images
from tests.support.tiny_text_bundle import tiny_texts

pytestmark = pytest.mark.usefixtures("restored_logging")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Twenty noisy images in two folders, of another size than the model's; one has a suffix in capital letters."""
    folder = tmp_path / "photos"
    for index, image in enumerate(tiny_images(20, size=12, seed=3)):
        (folder / f"{index % 2}").mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{index % 2}" / (f"{index:02}.PNG" if index == 7 else f"{index:02}.png"))
    return folder


def flat(result: dict[str, Any]) -> dict[str, Any]:
    """A result of the HTTP API in the columns of an output file."""
    if "error" in result:
        return {"error": result["error"]["type"], "error_detail": result["error"]["detail"]}
    row = {name: result[name] for name in ("flagged", "p_value")}
    prediction = result["prediction"] or {}
    row |= {name: prediction.get(name) for name in ("label", "probability")}
    for name, of_score in result["scores"].items():
        row[name] = of_score["value"]
        row |= {f"{name}_{part}": of_score[part] for part in ("anomaly", "p_value", "flagged")}
    return row | {"error": None, "error_detail": None}


def same(row: dict[str, Any], expected: dict[str, Any]) -> bool:
    return all(
        pytest.approx(value, rel=1e-5) == row[name] if isinstance(value, float) else value == row[name]
        for name, value in expected.items()
    )


def test_images_of_a_folder_get_the_rows_that_the_http_api_answers(
    photos: Path, repository: Path, live: Live, tmp_path: Path
) -> None:
    (photos / "broken.png").write_bytes(picture()[:40])
    (photos / "empty.jpg").touch()
    (photos / "moving.png").write_bytes(animation())
    (photos / "labels.csv").write_text("not an image")
    assert score(photos, tmp_path / "out", "--models", repository, "--scores", "msp,energy", model="tiny") == 0
    written = rows(tmp_path / "out")
    names = sorted(str(path.relative_to(photos)) for path in photos.rglob("*.*") if path.suffix != ".csv")
    assert [row["key"] for row in written] == names
    inputs = [{"image": encoded((photos / name).read_bytes())} for name in names]
    answer = live.score(model="tiny", json={"inputs": inputs, "scores": ["msp", "energy"]}).json()
    assert answer["version"] == "2", "both take the latest version"
    for row, result in zip(written, answer["results"], strict=True):
        assert same(row, flat(result)), (row, result)
    assert [row["error"] for row in written if row["error"]] == ["undecodable-image", "empty-input"]


@pytest.mark.parametrize("model", ["topics", "words"])
def test_texts_get_the_rows_that_the_http_api_answers(
    model: str, text_repository: Path, text_live: Live, tmp_path: Path
) -> None:
    texts = [*tiny_texts(40, seed=5), "", "unheard " * 90]
    source = parquet(tmp_path / "texts.parquet", text=texts)
    assert score(source, tmp_path / "out", "--alpha", "0.3", model=text_repository / model / "1") == 0
    answer = text_live.score(model=model, json={"inputs": texts, "alpha": 0.3}).json()
    written = rows(tmp_path / "out")
    assert [row["key"] for row in written] == list(range(42))
    for row, result in zip(written, answer["results"], strict=True):
        assert same(row, flat(result)), (row, result)
    assert any(row["flagged"] for row in written)


def test_texts_that_were_read_in_part_are_marked_and_counted(
    text_repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = parquet(tmp_path / "texts.parquet", text=["ball", "", "ball " * 50, "ball " * 800])
    assert score(source, tmp_path / "out", model=text_repository / "topics" / "1") == 0
    columns = ("truncated", "tokens_read", "tokens_total")
    assert [tuple(row[name] for name in columns) for row in rows(tmp_path / "out")] == [
        (False, 1, 1),
        (None, None, None),
        (True, 32, 50),
        (True, 32, 800),
    ]
    assert "truncated: 2 texts were read only in part" in capsys.readouterr().out
    assert json.loads((tmp_path / "out" / "_run.json").read_text())["complete"]["truncated"] == 2


def test_images_have_no_columns_about_tokens(photos: Path, repository: Path, tmp_path: Path) -> None:
    assert score(photos, tmp_path / "out", "--models", repository, model="tiny") == 0
    assert not {"truncated", "tokens_read", "tokens_total"} & set(rows(tmp_path / "out")[0])


def test_threads_and_batches_in_flight_change_no_row(tiny_bundle: Path, tmp_path: Path) -> None:
    files = [picture(f"rgb({shade}, {255 - shade}, 40)") for shade in range(100)]
    source = parquet(tmp_path / "shades.parquet", row_group_size=7, image=pa.array(files))
    for name, threads in ("one", "1"), ("four", "4"):
        assert score(source, tmp_path / name, "--threads", threads, "--part-size", "30", model=tiny_bundle) == 0
    assert len(rows(tmp_path / "one")) == 100
    assert rows(tmp_path / "one") == rows(tmp_path / "four")


def test_the_output_is_a_folder_that_pandas_reads_and_holds_the_terms_of_the_run(
    text_repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = parquet(tmp_path / "texts.parquet", text=[SPORTS, "qqq " * 5, POLITICS, None], name=list("abcd"))
    model = text_repository / "topics" / "1"
    assert score(source, tmp_path / "out", "--key", "name", "--part-size", "3", model=model) == 0
    frame = pd.read_parquet(tmp_path / "out").set_index("key")
    assert list(frame.label[:3]) == ["sports", frame.label["b"], "politics"]
    assert frame.error["d"] == "empty-input"
    run = json.loads((tmp_path / "out" / "_run.json").read_text())
    assert (run["terms"]["model"], run["terms"]["version"], run["terms"]["alpha"]) == ("topics", "1", 0.05)
    assert run["complete"]["inputs"] == 4
    assert run["complete"]["errors"] == {"empty-input": 1}
    assert run["complete"]["flagged"]["msp"] == int(np.sum(frame.flagged[:3].astype(bool)))
    printed = capsys.readouterr().out
    assert "4 inputs" in printed
    assert "error empty-input: 1" in printed
    assert "at alpha 0.05" in printed


def test_a_run_in_which_nothing_could_be_scored_ends_with_1(tiny_bundle: Path, tmp_path: Path) -> None:
    source = parquet(tmp_path / "x.parquet", image=[b"junk", b"more junk"])
    assert score(source, tmp_path / "out", model=tiny_bundle) == 1
    assert {row["error"] for row in rows(tmp_path / "out")} == {"undecodable-image"}


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (("--alpha", "2"), "alpha: 2.0 is not a false-flag rate"),
        (("--scores", "odin"), "this model does not offer 'odin'"),
        (("--model", "nothing"), "No model 'nothing' in the repository"),
        (("--models", "s3://bucket/models"), "copy the bundle's folder to this machine"),
        (("--version", "9"), "Model tiny has no version '9'; it has 1, 2"),
        (("--column", "text"), "column 'text' is string"),
        (("--column", "nothing"), "no column 'nothing'; its columns are image, text"),
        (("--key", "nothing"), "no column 'nothing'"),
        (("--max-batch", "0"), "OOD_MAX_BATCH"),
        (("--provider", "cuda"), "OOD_PROVIDER=cuda"),
    ],
)
def test_a_run_that_is_impossible_as_requested_is_refused_with_the_reason(
    flags: tuple[str, ...], reason: str, repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = parquet(tmp_path / "x.parquet", image=[picture()], text=[SPORTS])
    assert score(source, tmp_path / "out", "--models", repository, *flags, model="tiny") == 2
    assert reason in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_models_folder_in_place_of_a_bundle_is_refused_and_the_latest_bundle_named(
    repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = parquet(tmp_path / "x.parquet", image=[picture()])
    assert score(source, tmp_path / "out", model=repository / "tiny") == 2
    assert f"Name one of them: --model {repository / 'tiny' / '2'}." in capsys.readouterr().err


def test_an_alpha_at_which_nothing_can_be_flagged_is_a_warning(
    tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = parquet(tmp_path / "x.parquet", image=[picture()])
    assert score(source, tmp_path / "out", "--alpha", "0.0001", model=tiny_bundle) == 0
    assert "nothing can be flagged at alpha 0.0001" in capsys.readouterr().err


def test_without_pyarrow_the_extra_is_named() -> None:
    without = (
        "import sys; sys.modules['pyarrow'] = None; from service.__main__ import main; sys.exit(main(sys.argv[1:]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", without, "score-dataset", "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "pip install '.[offline]'" in done.stderr


def test_without_ray_the_extra_is_named(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    source = parquet(tmp_path / "x.parquet", image=[picture()])
    assert score(source, tmp_path / "out", "--ray", "auto", model=tiny_bundle) == 1
    assert "pip install '.[offline,ray]'" in capsys.readouterr().err
