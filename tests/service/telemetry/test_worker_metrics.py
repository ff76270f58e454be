"""Workers that tell each other their metrics: whichever is asked, and whoever has died."""

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge

from service.telemetry.worker_metrics import WorkerMetrics
from service.worker_group import WorkerGroup


class Worker:
    """A worker's metrics, and its part among its siblings."""

    def __init__(self, folder: Path, index: int, count: int = 2) -> None:
        registry = CollectorRegistry()
        self.inputs = Counter("inputs_total", "Inputs.", registry=registry)
        self.version = Gauge("version", "Version.", ("version",), registry=registry)
        self.worker_metrics = WorkerMetrics(WorkerGroup(index, count, folder), registry)

    async def told(self) -> dict[str, float]:
        collect_all = await self.worker_metrics.collect_all()
        return {
            sample.name + "".join(sample.labels.values()): sample.value
            for family in collect_all.collect()
            for sample in family.samples
            if not sample.name.endswith("_created")
        }


def run(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(scenario())


def test_whichever_is_asked_the_answer_is_the_same(tmp_path: Path) -> None:
    async def scenario() -> None:
        workers = [Worker(tmp_path, index, 3) for index in range(3)]
        for index, worker in enumerate(workers):
            worker.inputs.inc(10**index)
            await worker.worker_metrics.open()
        for worker in workers:
            assert await worker.told() == {"inputs_total": 111, "ood_workers_ready": 3}
        for worker in workers:
            worker.worker_metrics.close()

    run(scenario)


def test_what_a_dead_worker_told_counts_on_and_its_successor_goes_on_from_there(tmp_path: Path) -> None:
    async def scenario() -> None:
        first, second = Worker(tmp_path, 0), Worker(tmp_path, 1)
        await first.worker_metrics.open()
        await second.worker_metrics.open()
        first.inputs.inc(5)
        second.inputs.inc(7)
        second.version.labels("1").set(1)
        assert await first.told() == {"inputs_total": 12, "version1": 1, "ood_workers_ready": 2}
        second.worker_metrics.close()
        first.inputs.inc()
        # Its gauges say what is no more.
        assert await first.told() == {"inputs_total": 13, "ood_workers_ready": 1}
        successor = Worker(tmp_path, 1)
        await successor.worker_metrics.open()
        successor.inputs.inc(100)
        assert (await successor.told())["inputs_total"] == 113
        # And once more: nothing is counted twice, however many there were.
        successor.worker_metrics.close()
        last = Worker(tmp_path, 1)
        await last.worker_metrics.open()
        assert (await first.told())["inputs_total"] == 113
        assert (await last.told())["inputs_total"] == 113
        for worker in (first, last):
            worker.worker_metrics.close()

    run(scenario)


def test_a_worker_that_was_never_there_is_left_out(tmp_path: Path) -> None:
    async def scenario() -> None:
        alone = Worker(tmp_path, 0)
        await alone.worker_metrics.open()
        alone.inputs.inc()
        assert await alone.told() == {"inputs_total": 1, "ood_workers_ready": 1}
        alone.worker_metrics.close()

    run(scenario)


def test_a_worker_that_hangs_costs_a_second_and_is_counted_as_it_was(tmp_path: Path) -> None:
    async def scenario() -> None:
        first, second = Worker(tmp_path, 0), Worker(tmp_path, 1)
        await second.worker_metrics.open()
        second.inputs.inc(3)
        assert (await second.told())["inputs_total"] == 3
        second.worker_metrics.close()

        async def hang(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await asyncio.sleep(60)

        (tmp_path / "1.sock").unlink(missing_ok=True)
        server = await asyncio.start_unix_server(hang, tmp_path / "1.sock")
        async with asyncio.timeout(10):
            assert await first.told() == {"inputs_total": 3, "ood_workers_ready": 1}
        server.close()

    run(scenario)
