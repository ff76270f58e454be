"""A system clock that jumps while the service runs."""

import time
from pathlib import Path

import pytest

from service.auth.api_keys import digest_of
from tests.service.conftest import Serve
from tests.service.support.engine_gate import EngineGate, post_in_background
from tests.service.support.exposition import value
from tests.service.support.pictures import picture
from tests.support.waiting import until

DAY = 86_400.0


@pytest.mark.parametrize("jump", [DAY, -DAY], ids=["forward", "back"])
def test_a_clock_jump_moves_no_deadline_and_closes_no_connection(
    repository: Path, serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jump: float
) -> None:
    keys = tmp_path / "keys"
    keys.write_text(f"alice sha256:{digest_of('old')}\n")
    real_time = time.time  # noqa: TID251 - the clock that jumps
    with serve(repository, api_keys_file=keys) as live:
        live.client.headers["x-api-key"] = "old"
        gate = EngineGate(live)
        headers = {"content-type": "image/png", "x-api-key": "old"}
        running, running_answers = post_in_background(live, headers=headers)
        gate.until_batches(1)
        queued, queued_answers = post_in_background(live, headers=headers)
        until(lambda: value(live.client, "ood_queue_depth", model="tiny") == 1)
        monkeypatch.setattr(time, "time", lambda: real_time() + jump)
        began = time.monotonic()
        late = live.score(picture(), params={"timeout_ms": "200"})
        assert (late.status_code, 0.2 <= time.monotonic() - began < 10) == (504, True)
        gate.open()
        running.join()
        queued.join()
        assert (running_answers[0].status_code, queued_answers[0].status_code) == (200, 200)
        assert 0 <= value(live.client, "ood_queue_seconds_sum", model="tiny") < 20
        # A change of the key file is detected even if its time stamp looks older.
        keys.write_text(f"alice sha256:{digest_of('new')}\n")
        live.client.headers["x-api-key"] = "new"
        until(lambda: live.score(picture()).status_code == 200)
