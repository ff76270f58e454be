"""The first run on a GPU: its dry mode runs every step on a CPU."""

import json
from pathlib import Path

from benchmarks.gpu import FirstRun
from tests.service.support.pictures import picture
from tests.support.tiny_bundle import make_tiny_bundle


def test_the_dry_run_measures_without_errors_and_keeps_its_results_on_disk(tmp_path: Path) -> None:
    path = make_tiny_bundle(tmp_path / "models")
    (path / "sample.png").write_bytes(picture())
    run = FirstRun(tmp_path / "gpu.json", 600, tmp_path / "models", None, dry=True)
    measuring = [
        run.machine,
        run.placement,
        run.parity,
        run.batch_size_changes,
        run.throughput,
        run.streams,
        run.graphs,
    ]
    # `tests` would run pytest in this test.
    steps = [*measuring, run.service, run.front_ends, run.training]
    run.run(steps)
    results = json.loads((tmp_path / "gpu.json").read_text())
    assert [name for name in results if name != "dry"] == [step.__name__ for step in steps]
    for name, step in results.items():
        assert name == "dry" or '"error"' not in json.dumps(step["result"]), (name, step)
    assert results["parity"]["result"]["tiny"]["float32"]["energy"] < 1e-3
    assert set(results["throughput"]["result"]["tiny"]["float32"]) == {"1", "16"}
    assert set(results["streams"]["result"]["tiny"]) == {"1 sessions", "2 sessions"}
    served = results["front_ends"]["result"]
    assert list(served) == ["1 front ends", "2 front ends"]
    assert all(load["requests_per_second"] > 0 for figures in served.values() for load in figures.values())
    assert all(load["errors"] == 0 for figures in served.values() for load in figures.values())


def test_a_failing_step_is_recorded_and_the_next_one_runs(tmp_path: Path) -> None:
    run = FirstRun(tmp_path / "gpu.json", 600, tmp_path, None, dry=True)

    def broken() -> None:
        raise RuntimeError("no such device")

    run.run([broken, run.placement])
    results = json.loads((tmp_path / "gpu.json").read_text())
    assert results["broken"]["result"] == {"error": "RuntimeError: no such device"}
    assert results["placement"]["result"] == {}
