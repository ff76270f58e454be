"""A worker's siblings, as `GET /metrics` needs them: whichever worker is asked answers for all."""

import asyncio
from pathlib import Path

import structlog
from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from service.telemetry.merge_metrics import Families, cumulative_only, from_json, merge_families, to_json
from service.worker_group import WorkerGroup

# A sibling answers within milliseconds, if at all; Prometheus waits ten seconds for all of them.
_PATIENCE_SECONDS = 1.0

log = structlog.stdlib.get_logger(__name__)


class MergedCollector(Collector):
    """The families of a moment, for the encoders."""

    def __init__(self, families: Families) -> None:
        self._families = families

    def collect(self) -> Families:
        """The families."""
        return self._families


class WorkerMetrics:
    """Tells the siblings what this worker of a `worker_group` has counted in `registry`, and asks them for theirs.

    Counters never fall, though workers die: whatever a worker tells, to a sibling or to Prometheus, it has written to a
    file before. From there it still counts when the worker is dead, and its successor takes it over. What was counted
    since then died with it.
    """

    def __init__(self, worker_group: WorkerGroup, registry: CollectorRegistry) -> None:
        self._worker_group = worker_group
        self._registry = registry
        self._server: asyncio.Server | None = None
        self._carried_over = self._last_snapshot(worker_group.index)

    async def open(self) -> None:
        """Answer siblings from here on."""
        socket = self._socket(self._worker_group.index)
        # A predecessor that was killed left its own.
        socket.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._answer, socket)

    def close(self) -> None:
        """Answer no more."""
        if self._server is not None:
            self._server.close()

    async def collect_all(self) -> MergedCollector:
        """The metrics of all workers: of one that does not answer, its counters as it told them last."""
        own, _ = self._snapshot()
        others = await asyncio.gather(*(self._fetch(index) for index in self._worker_group.peers))
        answers = [own, *(families for families in others if families is not None)]
        dead = [
            self._last_snapshot(index)
            for index, each in zip(self._worker_group.peers, others, strict=True)
            if each is None
        ]
        ready = GaugeMetricFamily(
            "ood_workers_ready", "Worker processes that have answered for these metrics.", len(answers)
        )
        families = (family for each in (*answers, *dead) for family in each)
        return MergedCollector([*merge_families(families, self._worker_group.count), ready])

    def _snapshot(self) -> tuple[list[Metric], bytes]:
        """What this worker tells now, and the same as it is sent; written down."""
        families = [*self._registry.collect(), *self._carried_over]
        data = to_json(families)
        file = self._file(self._worker_group.index)
        part = file.with_suffix(".part")
        part.write_bytes(data)
        # In one step: who dies in between leaves what was told before.
        part.replace(file)
        return families, data

    async def _answer(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(self._snapshot()[1])
        writer.close()
        await writer.wait_closed()

    async def _fetch(self, index: int) -> Families | None:
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                reader, writer = await asyncio.open_unix_connection(self._socket(index))
                try:
                    return from_json(await reader.read())
                finally:
                    writer.close()
        except (OSError, ValueError) as error:
            reason = f"{type(error).__name__}: {error}"
            log.warning("metrics without those of a worker that does not answer", sibling=index, reason=reason)
            return None

    def _last_snapshot(self, index: int) -> Families:
        try:
            return cumulative_only(from_json(self._file(index).read_bytes()))
        except FileNotFoundError:
            return []

    def _socket(self, index: int) -> Path:
        return self._worker_group.shared_file(f"{index}.sock")

    def _file(self, index: int) -> Path:
        return self._worker_group.shared_file(f"counted-{index}.json")
