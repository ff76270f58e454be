"""Front ends and the engine process: slots, faults of outputs, and engine processes that end."""

import asyncio
import socket
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

import httpx
import numpy as np
import pytest

from bundle import load_bundle
from service.inference.engine_health import EngineHealth
from service.inference.remote.connection import EngineRefused
from service.inference.remote.remote_engines import RemoteEngines
from service.inputs.modality import Array
from tests.service.conftest import Live, Serve
from tests.service.support.answers import problem
from tests.service.support.engine_gate import EngineGate, replace_engine
from tests.service.support.exposition import value
from tests.service.support.pictures import picture
from tests.support.waiting import until


def depth(live: Live) -> float:
    return value(live.client, "ood_queue_depth", model="tiny")


def test_cancelled_inputs_free_their_slots(tiny_bundle: Path, serve: Serve) -> None:
    with serve(tiny_bundle.parents[1], engine_process=True, queue_size=4, max_inputs=4, max_batch=1) as live:
        gate = EngineGate(live)
        # There are five slots: for a queue of four, and one input that is being computed.
        for _ in range(3):
            clients = [httpx.Client(base_url=live.client.base_url, timeout=0.5) for _ in range(4)]
            threads = [threading.Thread(target=_give_up, args=(client,)) for client in clients]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            for client in clients:
                client.close()
            until(lambda: depth(live) == 0)
        gate.open()
        for _ in range(10):
            assert live.score(picture()).status_code == 200


def _give_up(client: httpx.Client) -> None:
    with pytest.raises(httpx.ReadTimeout):
        client.post("/v1/models/tiny/score", content=picture(), headers={"content-type": "image/png"})


@pytest.mark.parametrize("shape", [(2,), (1,), (0,)])
def test_outputs_of_another_shape_than_in_the_warm_up_fail_their_batch_only(
    shape: tuple[int, ...], tiny_bundle: Path, serve: Serve
) -> None:
    with serve(tiny_bundle.parents[1], engine_process=True) as live:

        def run(items: Sequence[Array], *, exclusive: bool) -> Mapping[str, Array]:
            outputs = dict(unreplaced(items, exclusive=exclusive))
            return outputs | {"msp": np.zeros((len(items), *shape), np.float32)}

        unreplaced = replace_engine(live, run)
        problem(live.score(picture()), 500, "inference-failed")
        live.engine().replacement = None
        assert live.score(picture()).status_code == 200
        assert depth(live) == 0


def test_a_bundle_is_refused_if_every_engine_process_ends_while_it_opens_it(tiny_bundle: Path, tmp_path: Path) -> None:
    connections = 0

    def end_every_time(listener: socket.socket) -> None:
        nonlocal connections
        while True:
            try:
                listener.accept()[0].close()
            except OSError:
                return
            connections += 1

    async def scenario() -> None:
        engines = RemoteEngines(tmp_path / "engine.sock", asyncio.get_running_loop(), EngineHealth(30, 0))
        with pytest.raises(EngineRefused, match="tiny: each of 3 engine processes failed to open it"):
            await asyncio.to_thread(engines.open, load_bundle(tiny_bundle), lambda: None)  # type: ignore[arg-type]

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "engine.sock"))
        listener.listen()
        thread = threading.Thread(target=end_every_time, args=(listener,))
        thread.start()
        asyncio.run(scenario())
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
    assert connections == 3
