"""Compares ONNX Runtime alone, this service, plain FastAPI and other model servers, interleaved in one run.

Every round starts, measures and ends each server in turn. A temporary slowdown of the machine affects all servers, and
no two of them run at the same time.
"""

import subprocess
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

import onnxruntime

from benchmarks.comparison import Comparison, plot, table
from benchmarks.inputs import prepare_bundle, sample_file, save_graph_inputs
from benchmarks.processes import NotReady, run_module
from benchmarks.results import CONSOLE, FOLDER, write_result
from benchmarks.servers import PEERS, SERVICE, PeerLayout, Server, WrongScore, run_server, with_workers
from bundle import Bundle
from service.cpu_count import available_cores
from service.inference.providers import CUDA, choose_provider

WARM_UP_SECONDS = 1.0

Figures = dict[str, Any]


def measure(
    models: Sequence[str],
    concurrency: Sequence[int],
    rounds: int,
    seconds: float,
    peer_names: Sequence[str],
    workers: int | None,
    batch: int,
) -> None:
    """Print, plot and write the comparison for each of `models`.

    Args:
        models: Names of networks with random weights, and folders of bundles.
        concurrency: The numbers of connections.
        rounds: The number of rounds, whose medians are reported.
        seconds: The length of each measurement.
        peer_names: The names of the peers, or `all`.
        workers: The worker processes of each peer: by default one per core, or one on a GPU. This service is measured
            with one process and with as many.
        batch: The largest batch of a peer.
    """
    peers = _peers_by_name(peer_names)
    cores = available_cores()
    if workers is None:
        workers = 1 if choose_provider("auto")[0].first == CUDA else cores
    layout = PeerLayout(workers, max(1, cores // workers), batch)
    excluded = {peer.name: "not installed: python -m benchmarks install-peers" for peer in peers if not peer.installed}
    this_service = [SERVICE] if workers == 1 else [SERVICE, with_workers(workers)]
    servers = [*this_service, *(peer for peer in peers if peer.installed)]
    versions = {server.name: server.versions() for server in servers}
    for model in models:
        with tempfile.TemporaryDirectory() as folder:
            benchmark = ModelBenchmark(prepare_bundle(Path(folder), model), Path(folder), servers, layout)
            for number in range(rounds):
                CONSOLE.print(f"{benchmark.name}: round {number + 1} of {rounds}")
                benchmark.run_round(concurrency, seconds)
        comparison = benchmark.comparison(concurrency, excluded)
        CONSOLE.print(table(comparison))
        plot(comparison, FOLDER / f"peers-{benchmark.name}.png")
        options = {"rounds": rounds, "seconds_per_measurement": seconds, "peer_layout": asdict(layout)}
        write_result(f"peers-{benchmark.name}", {**options, **comparison.to_dict()}, versions)


class ModelBenchmark:
    """The rounds of one model: the figures of each server, and the servers that failed."""

    def __init__(self, bundle: Bundle, folder: Path, servers: Sequence[Server], layout: PeerLayout) -> None:
        self.name = bundle.manifest.name
        self._bundle = bundle
        self._sample = sample_file(bundle, folder)
        self._servers = list(servers)
        self._layout = layout
        self._inputs = folder / "input.npz"
        self._failures: dict[str, str] = {}
        self._upper_limits: list[Figures] = []
        self._rounds: dict[tuple[str, int], list[Figures]] = defaultdict(list)
        self._msp = _expected_msp(bundle, save_graph_inputs(bundle, self._sample, self._inputs))

    def run_round(self, concurrency: Sequence[int], seconds: float) -> None:
        """Measure the upper limit, then every server at every concurrency."""
        figures = run_module("benchmarks.upper_limit", str(self._bundle.model_path), str(self._inputs), str(seconds))
        self._upper_limits.append(figures)
        for server in self._servers:
            if server.name in self._failures:
                continue
            try:
                self._measure(server, concurrency, seconds, figures["inputs_per_second"])
            except (NotReady, WrongScore, subprocess.SubprocessError) as error:
                self._failures[server.name] = f"{type(error).__name__}: {error}"
                CONSOLE.print(f"[red]{server.name}[/]", self._failures[server.name], markup=True)

    def _measure(self, server: Server, concurrency: Sequence[int], seconds: float, upper_limit: float) -> None:
        with run_server(server, self._bundle, self._sample, msp=self._msp, layout=self._layout) as process:
            process.closed_loop(max(concurrency), WARM_UP_SECONDS)
            for connections in concurrency:
                figures = process.closed_loop(connections, seconds)
                share = figures["requests_per_second"] / upper_limit
                self._rounds[server.name, connections].append(figures | {"share_of_upper_limit": share})

    def comparison(self, concurrency: Sequence[int], excluded: dict[str, str]) -> Comparison:
        """The medians over the rounds."""
        keys = ("inputs_per_second", "median_seconds")
        upper_limit = {key: median(figures[key] for figures in self._upper_limits) for key in keys}
        return Comparison(
            model=self.name,
            upper_limit=upper_limit | {"layouts": [figures["layout"] for figures in self._upper_limits]},
            servers={
                server.name: {number: medians(self._rounds[server.name, number]) for number in concurrency}
                for server in self._servers
                if server.name not in self._failures
            },
            excluded=excluded | self._failures,
        )


def medians(rounds: Sequence[Figures]) -> Figures:
    """The median of each figure over the rounds without errors (None if all had errors), and the sum of all errors."""
    valid = [figures for figures in rounds if not figures["errors"]]
    keys = ("requests_per_second", "share_of_upper_limit", "p50_seconds", "p99_seconds")
    result: Figures = {key: median(figures[key] for figures in valid) if valid else None for key in keys}
    return result | {"errors": sum(figures["errors"] for figures in rounds)}


def _expected_msp(bundle: Bundle, inputs: Figures) -> float:
    """The score msp of the graph's `inputs`, which every server must return."""
    if bundle.manifest.default_score != "msp":
        raise SystemExit(f"{bundle.path} scores with {bundle.manifest.default_score}: choose a model that uses msp")
    session = onnxruntime.InferenceSession(bundle.model_path, providers=["CPUExecutionProvider"])
    (score,) = session.run(["msp"], inputs)[0]
    return float(score)


def _peers_by_name(names: Sequence[str]) -> list[Server]:
    available = [peer.name for peer in PEERS]
    if unknown := set(names) - {*available, "all"}:
        raise SystemExit(f"unknown peers {', '.join(sorted(unknown))}: choose among all, {', '.join(available)}")
    return [peer for peer in PEERS if peer.name in names or "all" in names]
