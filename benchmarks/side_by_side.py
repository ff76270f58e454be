"""Side by side: ONNX Runtime alone, this service, plain FastAPI and other model servers, interleaved in one run.

Every round measures every server, each started afresh and ended before the next: what slows the machine down for a
while slows all of them, and none runs beside another.
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
from benchmarks.inputs import bundle_in, keep_input, sample_of
from benchmarks.processes import NotReady, run_module
from benchmarks.results import CONSOLE, FOLDER, keep
from benchmarks.servers import PEERS, SERVICE, Layout, Server, WrongAnswer, serving, with_workers
from bundle import Bundle
from service.inference.cpu_count import available_cores
from service.inference.providers import CUDA, choose_provider

WARM_UP_SECONDS = 1.0

Round = dict[str, Any]


def measure(
    models: Sequence[str],
    concurrency: Sequence[int],
    rounds: int,
    seconds: float,
    names: Sequence[str],
    workers: int | None,
    batch: int,
) -> None:
    """Print, plot and keep the comparison for each of `models`, a network's name or a bundle's folder.

    `names` are the peers, or `all`; `workers` is how many processes of each hold a session, by default one for each
    core, and on a GPU one; this service is measured with as many, too, beside its single process. `batch` is how many
    requests a peer's session computes together at most.
    """
    peers = _chosen(names)
    cores = available_cores()
    if workers is None:
        workers = 1 if choose_provider("auto")[0].first == CUDA else cores
    layout = Layout(workers, max(1, cores // workers), batch)
    left_out = {peer.name: "not installed: python -m benchmarks install-peers" for peer in peers if not peer.installed}
    exclusive = [SERVICE] if workers == 1 else [SERVICE, with_workers(workers)]
    servers = [*exclusive, *(peer for peer in peers if peer.installed)]
    versions = {server.name: server.versions() for server in servers}
    for model in models:
        with tempfile.TemporaryDirectory() as folder:
            contest = Contest(bundle_in(Path(folder), model), Path(folder), servers, layout)
            for number in range(rounds):
                CONSOLE.print(f"{contest.name}: round {number + 1} of {rounds}")
                contest.play(concurrency, seconds)
        comparison = contest.comparison(concurrency, left_out)
        CONSOLE.print(table(comparison))
        plot(comparison, FOLDER / f"peers-{contest.name}.png")
        setting = {"rounds": rounds, "seconds": seconds, "peers": asdict(layout)}
        keep(f"peers-{contest.name}", {**setting, **comparison.figures()}, versions)


class Contest:
    """One model's rounds: what each server was measured to do, and which of them could not be."""

    def __init__(self, bundle: Bundle, folder: Path, servers: Sequence[Server], layout: Layout) -> None:
        self.name = bundle.manifest.name
        self._bundle = bundle
        self._sample = sample_of(bundle, folder)
        self._servers = list(servers)
        self._layout = layout
        self._inputs = folder / "input.npz"
        self._failed: dict[str, str] = {}
        self._ceilings: list[dict[str, Any]] = []
        self._rounds: dict[tuple[str, int], list[Round]] = defaultdict(list)
        self._msp = _msp(bundle, keep_input(bundle, self._sample, self._inputs))

    def play(self, concurrency: Sequence[int], seconds: float) -> None:
        """One round: the ceiling, then every server at every concurrency."""
        ceiling = run_module("benchmarks.ceiling", str(self._bundle.model_path), str(self._inputs), str(seconds))
        self._ceilings.append(ceiling)
        for server in self._servers:
            if server.name in self._failed:
                continue
            try:
                self._measure(server, concurrency, seconds, ceiling["inputs_per_second"])
            except (NotReady, WrongAnswer, subprocess.SubprocessError) as error:
                self._failed[server.name] = f"{type(error).__name__}: {error}"
                CONSOLE.print(f"[red]{server.name}[/]", self._failed[server.name], markup=True)

    def _measure(self, server: Server, concurrency: Sequence[int], seconds: float, ceiling: float) -> None:
        with serving(server, self._bundle, self._sample, msp=self._msp, layout=self._layout) as target:
            target.load(max(concurrency), WARM_UP_SECONDS)
            for connections in concurrency:
                figures = target.load(connections, seconds)
                self._rounds[server.name, connections].append(
                    figures | {"share": figures["requests_per_second"] / ceiling}
                )

    def comparison(self, concurrency: Sequence[int], left_out: dict[str, str]) -> Comparison:
        """The medians over the rounds."""
        ceiling = {key: median(each[key] for each in self._ceilings) for key in ("inputs_per_second", "median_seconds")}
        return Comparison(
            model=self.name,
            ceiling=ceiling | {"layouts": [each["layout"] for each in self._ceilings]},
            servers={
                server.name: {each: middle(self._rounds[server.name, each]) for each in concurrency}
                for server in self._servers
                if server.name not in self._failed
            },
            left_out=left_out | self._failed,
        )


def middle(rounds: Sequence[Round]) -> Round:
    """The median of each figure over the rounds without errors, None where there is none; all errors."""
    good = [each for each in rounds if not each["errors"]]
    names = ("requests_per_second", "share", "p50", "p99")
    figures: Round = {name: median(each[name] for each in good) if good else None for name in names}
    return figures | {"errors": sum(each["errors"] for each in rounds)}


def _msp(bundle: Bundle, one: dict[str, Any]) -> float:
    """What every server must answer."""
    if bundle.manifest.default_score != "msp":
        raise SystemExit(
            f"{bundle.path} scores with {bundle.manifest.default_score}: choose a model that does with msp"
        )
    session = onnxruntime.InferenceSession(bundle.model_path, providers=["CPUExecutionProvider"])
    (score,) = session.run(["msp"], one)[0]
    return float(score)


def _chosen(names: Sequence[str]) -> list[Server]:
    known = {peer.name: peer for peer in PEERS}
    if unknown := set(names) - {*known, "all"}:
        raise SystemExit(f"unknown peers {', '.join(sorted(unknown))}: choose among all, {', '.join(known)}")
    return [peer for peer in PEERS if peer.name in names or "all" in names]
