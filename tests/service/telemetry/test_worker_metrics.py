"""Workers exchange metrics: every worker reports for all, including workers that have died."""

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge

from service.telemetry.worker_metrics import WorkerMetrics
from service.worker_group import WorkerGroup

TIMEOUT_SECONDS = 60


class Worker:
    """A worker with a counter and a gauge of its own."""

    def __init__(self, folder: Path, index: int, count: int = 2, peer_timeout: float = TIMEOUT_SECONDS) -> None:
        registry = CollectorRegistry()
        self.inputs = Counter("inputs_total", "Inputs.", registry=registry)
        self.version = Gauge("version", "Version.", ("version",), registry=registry)
        self._metrics = WorkerMetrics(WorkerGroup(index, count, folder), registry, peer_timeout=peer_timeout)
        self.open, self.close = self._metrics.open, self._metrics.close

    async def collected(self) -> dict[str, float]:
        """The merged samples that this worker reports, by name and label."""
        collector = await self._metrics.collect_all()
        return {
            sample.name + "".join(sample.labels.values()): sample.value
            for family in collector.collect()
            for sample in family.samples
            if not sample.name.endswith("_created")
        }


def run(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            await scenario()

    asyncio.run(bounded())


def test_every_worker_reports_the_same_totals(tmp_path: Path) -> None:
    async def scenario() -> None:
        workers = [Worker(tmp_path, index, 3) for index in range(3)]
        for index, worker in enumerate(workers):
            worker.inputs.inc(10**index)
            await worker.open()
        for worker in workers:
            assert await worker.collected() == {"inputs_total": 111, "ood_workers_ready": 3}
        for worker in workers:
            worker.close()

    run(scenario)


def test_counters_of_a_dead_worker_stay_and_its_successor_continues_them(tmp_path: Path) -> None:
    async def scenario() -> None:
        first, second = Worker(tmp_path, 0), Worker(tmp_path, 1)
        await first.open()
        await second.open()
        first.inputs.inc(5)
        second.inputs.inc(7)
        second.version.labels("1").set(1)
        assert await first.collected() == {"inputs_total": 12, "version1": 1, "ood_workers_ready": 2}
        second.close()
        first.inputs.inc()
        # Gauges of a dead worker are left out: they describe a process that no longer exists.
        assert await first.collected() == {"inputs_total": 13, "ood_workers_ready": 1}
        successor = Worker(tmp_path, 1)
        await successor.open()
        successor.inputs.inc(100)
        assert (await successor.collected())["inputs_total"] == 113
        # A second successor: nothing is counted twice.
        successor.close()
        last = Worker(tmp_path, 1)
        await last.open()
        assert (await first.collected())["inputs_total"] == 113
        assert (await last.collected())["inputs_total"] == 113
        for worker in (first, last):
            worker.close()

    run(scenario)


def test_a_worker_that_never_started_is_left_out(tmp_path: Path) -> None:
    async def scenario() -> None:
        alone = Worker(tmp_path, 0)
        await alone.open()
        alone.inputs.inc()
        assert await alone.collected() == {"inputs_total": 1, "ood_workers_ready": 1}
        alone.close()

    run(scenario)


def test_a_worker_that_does_not_answer_in_time_is_counted_by_its_last_snapshot(tmp_path: Path) -> None:
    async def scenario() -> None:
        first, second = Worker(tmp_path, 0, peer_timeout=0.01), Worker(tmp_path, 1, peer_timeout=0.01)
        await second.open()
        second.inputs.inc(3)
        assert (await second.collected())["inputs_total"] == 3
        second.close()
        released = asyncio.Event()

        async def hang(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await released.wait()
            writer.close()

        (tmp_path / "1.sock").unlink(missing_ok=True)
        server = await asyncio.start_unix_server(hang, tmp_path / "1.sock")
        assert await first.collected() == {"inputs_total": 3, "ood_workers_ready": 1}
        released.set()
        server.close()
        await server.wait_closed()

    run(scenario)
