"""Exchange of metrics between the worker processes of a service, so that each worker can report for all of them."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import structlog
from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from service.single_flight import SingleFlight
from service.telemetry.merge_metrics import Families, cumulative_only, from_json, merge_families, to_json
from service.worker_group import WorkerGroup

PEER_TIMEOUT_SECONDS = 1.0
"""How long a worker waits for the metrics of its peers, which take milliseconds. Prometheus waits ten seconds."""

log = structlog.stdlib.get_logger(__name__)


class MergedCollector(Collector):
    """A collector of metric families that are already computed."""

    def __init__(self, families: Families) -> None:
        self._families = families

    def collect(self) -> Families:
        """Return the families."""
        return self._families


class WorkerMetrics:
    """Sends the metrics of this worker to its peers and collects theirs, over Unix sockets in the group's folder.

    Counters never fall, even if workers die: a worker writes each snapshot to a file before it sends the snapshot.
    Peers count a dead worker by its last snapshot, and its successor carries the snapshot over. Events after the last
    snapshot of a dead worker are lost.
    """

    def __init__(
        self, worker_group: WorkerGroup, registry: CollectorRegistry, *, peer_timeout: float = PEER_TIMEOUT_SECONDS
    ) -> None:
        """Read the last snapshot of a predecessor, if there was one.

        Args:
            worker_group: This worker's index and its peers.
            registry: The metrics of this process.
            peer_timeout: Seconds to wait for a peer before its last snapshot is used.
        """
        self._worker_group = worker_group
        self._registry = registry
        self._peer_timeout = peer_timeout
        self._server: asyncio.Server | None = None
        self._carried_over = self._last_snapshot(worker_group.index)
        # On a thread: it takes a tenth of a second with a dozen models. Shared: two would write the same file.
        self._snapshot = SingleFlight(lambda: asyncio.to_thread(self._take_snapshot))

    async def open(self) -> None:
        """Start to answer peers."""
        socket = self._socket(self._worker_group.index)
        # A predecessor that was killed leaves its socket behind.
        socket.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._answer, socket)

    def close(self) -> None:
        """Stop answering peers."""
        if self._server is not None:
            self._server.close()

    async def collect_all(self) -> MergedCollector:
        """Return the merged metrics of all workers; those of a worker that does not answer are its last counters."""
        mine, _ = await self._snapshot()
        peers = self._worker_group.peers
        if self._worker_group.engine_process:
            peers.append(self._worker_group.engine_index)
        answers = await asyncio.gather(*(self._fetch(index) for index in peers))
        return await asyncio.to_thread(self._merge, mine, peers, answers)

    def _merge(self, mine: Families, peers: Sequence[int], answers: Sequence[Families | None]) -> MergedCollector:
        live = [mine, *(families for families in answers if families is not None)]
        dead = [self._last_snapshot(index) for index, families in zip(peers, answers, strict=True) if families is None]
        ready = 1 + sum(
            families is not None and index != self._worker_group.engine_index
            for index, families in zip(peers, answers, strict=True)
        )
        ready_family = GaugeMetricFamily(
            "ood_workers_ready", "Worker processes that have answered for these metrics.", ready
        )
        families = (family for snapshot in (*live, *dead) for family in snapshot)
        return MergedCollector([*merge_families(families, self._worker_group.count), ready_family])

    def _take_snapshot(self) -> tuple[list[Metric], bytes]:
        """Return this worker's metrics, and the same encoded; writes them to the snapshot file."""
        families = [*self._registry.collect(), *self._carried_over]
        data = to_json(families)
        file = self._file(self._worker_group.index)
        partial = file.with_suffix(".partial")
        partial.write_bytes(data)
        # Renamed in one step: a worker that is killed in between leaves its previous snapshot.
        partial.replace(file)
        return families, data

    async def _answer(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write((await self._snapshot())[1])
        writer.close()
        await writer.wait_closed()

    async def _fetch(self, index: int) -> Families | None:
        """Return the metrics of the peer `index`, or None if it does not answer in time."""
        try:
            async with asyncio.timeout(self._peer_timeout):
                reader, writer = await asyncio.open_unix_connection(self._socket(index))
                try:
                    return await asyncio.to_thread(from_json, await reader.read())
                finally:
                    writer.close()
        except (OSError, ValueError) as error:
            log.warning("worker metrics missing", peer=index, reason=f"{type(error).__name__}: {error}")
            return None

    def _last_snapshot(self, index: int) -> Families:
        """Return the counters and histograms of the worker's snapshot file; none if there is no file."""
        try:
            return cumulative_only(from_json(self._file(index).read_bytes()))
        except FileNotFoundError:
            return []

    def _socket(self, index: int) -> Path:
        return self._worker_group.shared_file(f"{index}.sock")

    def _file(self, index: int) -> Path:
        return self._worker_group.shared_file(f"metrics-{index}.json")
