"""A worker's siblings, as `GET /metrics` needs them: whichever worker is asked answers for all."""

import asyncio
from pathlib import Path

import structlog
from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from service.telemetry.merge_metrics import Families, counted, from_json, to_json, total
from service.worker_group import Crew

# A sibling answers within milliseconds, if at all; Prometheus waits ten seconds for all of them.
_PATIENCE_SECONDS = 1.0

log = structlog.stdlib.get_logger(__name__)


class Totals(Collector):
    """The families of a moment, for the encoders."""

    def __init__(self, families: Families) -> None:
        self._families = families

    def collect(self) -> Families:
        """The families."""
        return self._families


class Siblings:
    """Tells the siblings what this worker of a `crew` has counted in `registry`, and asks them for theirs.

    Counters never fall, though workers die: whatever a worker tells, to a sibling or to Prometheus, it has written to a
    file before. From there it still counts when the worker is dead, and its successor takes it over. What was counted
    since then died with it.
    """

    def __init__(self, crew: Crew, registry: CollectorRegistry) -> None:
        self._crew = crew
        self._registry = registry
        self._server: asyncio.Server | None = None
        self._inherited = self._last_told(crew.index)

    async def open(self) -> None:
        """Answer siblings from here on."""
        socket = self._socket(self._crew.index)
        # A predecessor that was killed left its own.
        socket.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._answer, socket)

    def close(self) -> None:
        """Answer no more."""
        if self._server is not None:
            self._server.close()

    async def totals(self) -> Totals:
        """The metrics of all workers: of one that does not answer, its counters as it told them last."""
        own, _ = self._told()
        others = await asyncio.gather(*(self._ask(index) for index in self._crew.siblings))
        answers = [own, *(families for families in others if families is not None)]
        dead = [self._last_told(index) for index, each in zip(self._crew.siblings, others, strict=True) if each is None]
        ready = GaugeMetricFamily(
            "ood_workers_ready", "Worker processes that have answered for these metrics.", len(answers)
        )
        families = (family for each in (*answers, *dead) for family in each)
        return Totals([*total(families, self._crew.count), ready])

    def _told(self) -> tuple[list[Metric], bytes]:
        """What this worker tells now, and the same as it is sent; written down."""
        families = [*self._registry.collect(), *self._inherited]
        data = to_json(families)
        file = self._file(self._crew.index)
        part = file.with_suffix(".part")
        part.write_bytes(data)
        # In one step: who dies in between leaves what was told before.
        part.replace(file)
        return families, data

    async def _answer(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(self._told()[1])
        writer.close()
        await writer.wait_closed()

    async def _ask(self, index: int) -> Families | None:
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

    def _last_told(self, index: int) -> Families:
        try:
            return counted(from_json(self._file(index).read_bytes()))
        except FileNotFoundError:
            return []

    def _socket(self, index: int) -> Path:
        return self._crew.folder / f"{index}.sock"

    def _file(self, index: int) -> Path:
        return self._crew.folder / f"counted-{index}.json"
