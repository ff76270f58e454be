"""The table of speeds of docs/results.md, with figures from the files in benchmarks/results/."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from result_tables import Table

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"
CONNECTIONS = ("1", "8", "32", "128")
_COLUMNS = ("what", "figure", "command")
_TOPOLOGIES = {
    "this service": "one process",
    "this service, 2 workers": "two workers",
    "this service, 2 workers and an engine process": "two front ends and an engine process",
}
OWN, OWN_TWO_WORKERS = "this service", "this service, 2 workers"


def speed() -> Table:
    """Throughput and latency of serving and training, each with the command that measures it."""
    wrn, chars, posts = (_figures(f"serving-{name}") for name in ("wrn-40-2", "ptb-char-qrnn", "newsgroups-gru"))
    rows = [
        _share_of_wrn(),
        [
            f"WRN-40-2, concurrency 1: added to a bare `session.run` ({wrn['session_run_p50_ms']:.1f} ms), median",
            f"{wrn['added_p50_ms_at_concurrency_1']:.1f} ms",
            "the same",
        ],
        [
            "`ptb-char-qrnn` over HTTP, concurrency 32, one sentence a request: share of ONNX Runtime alone "
            f"({_limit(chars)} texts/s)",
            f"{chars['share_of_upper_limit']:.2f}",
            "`python -m benchmarks serving --model models/ptb-char-qrnn/1`",
        ],
        [
            "`newsgroups-gru` over HTTP, concurrency 32, one post a request: share of ONNX Runtime alone "
            f"({_limit(posts)} texts/s)",
            f"{posts['share_of_upper_limit']:.2f}",
            "`python -m benchmarks serving --model models/newsgroups-gru/1`",
        ],
        _overload(),
        *_peers(),
        *_likelihoods(),
        *_training(),
    ]
    return _COLUMNS, rows


def serving() -> Table:
    """The throughput of the service compared with ONNX Runtime alone."""
    return _COLUMNS, [_share_of_wrn()]


def front_ends() -> Table:
    """The throughput of front ends before an engine process that computes next to nothing."""
    figures = _figures("topology")
    kinds = ("single_images", "64_images")

    def row(name: str, count: int, key: str, unit: str = "") -> list[str]:
        numbers = [figures[f"{count}_front_ends_{kind}"][key] for kind in kinds]
        return [name, *(f"{number:.2f}{unit}" if unit else f"{number:,.0f}" for number in numbers)]

    rows = [
        row("images per second of a front end's processor time", 1, "images_per_front_end_core_second"),
        row("images per second of the engine process's processor time", 1, "images_per_engine_core_second"),
        row("two front ends, compared with one, by processor time", 2, "times_one_front_end", " times"),
    ]
    return ("an engine that computes next to nothing", "single PNGs", "64 raw images a request"), rows


def topologies() -> Table:
    """One process, two workers, and two front ends with an engine process, serving `cifar10-oe`."""
    figures = _figures("topology")
    columns = ["`cifar10-oe` on a CPU"]
    rows = [[name] for name in _TOPOLOGIES.values()]
    for connections in (32, 128):
        columns += [f"{connections} connections, requests/s", "p99, ms", "CPU ms a request"]
        for row, name in zip(rows, _TOPOLOGIES, strict=True):
            load = figures[f"{name}, {connections} connections"]
            row += [
                f"{load['requests_per_second']:.0f}",
                f"{load['p99_ms']:.0f}",
                f"{load['service_cpu_ms_per_request']:.2f}",
            ]
    return tuple(columns), rows


TOPOLOGY_SECTIONS: Mapping[str, Callable[[], Table]] = {"front-ends": front_ends, "topologies": topologies}
SPEED_SECTIONS: Mapping[str, Callable[[], Table]] = {"speed": speed}


def _share_of_wrn() -> list[str]:
    figures = _figures("serving-wrn-40-2")
    return [
        "WRN-40-2 over HTTP, two cores, concurrency 32, one PNG a request: share of ONNX Runtime alone "
        f"({_limit(figures)} images/s)",
        f"{figures['share_of_upper_limit']:.2f}",
        "`python -m benchmarks serving --rounds 9`",
    ]


def _figures(name: str) -> dict[str, Any]:
    figures: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))["figures"]
    return figures


def _limit(figures: Mapping[str, Any]) -> str:
    return f"{figures['upper_limit_inputs_per_second']:,.0f}"


def _overload() -> list[str]:
    figures = _figures("overload-wrn-40-2")
    what = (
        f"WRN-40-2 at ten times the sustainable rate: goodput as a share of the peak "
        f"({figures['peak_requests_per_second']:,.0f} images/s); p99 of what is accepted, deadline "
        f"{figures['deadline_ms'] / 1000:g} s; p50 and p99 of the 503s"
    )
    measured = (
        f"{figures['goodput_share_of_peak']:.2f}; {figures['accepted_p99_ms'] / 1000:.2f} s; "
        f"{figures['rejected_p50_ms']:.0f} and {figures['rejected_p99_ms']:.0f} ms"
    )
    return [what, measured, "`python -m benchmarks overload`"]


def _peers() -> list[list[str]]:
    """Requests per second at each number of connections: the service, and the best of the other servers."""
    names = {"wrn-40-2": ("The same network", OWN), "tiny": ("A tiny network", OWN_TWO_WORKERS)}
    names["newsgroups-gru"] = ("`newsgroups-gru`", OWN_TWO_WORKERS)
    rows = []
    for model, (what, own) in names.items():
        servers = _figures(f"peers-{model}")["servers"]
        others = [server for name, server in servers.items() if name not in (OWN, OWN_TWO_WORKERS)]
        best = [max(_rate(server, connections) for server in others) for connections in CONNECTIONS]
        workers = ", with `OOD_WORKERS=2`," if own == OWN_TWO_WORKERS else ""
        rows.append(
            [
                f"{what}{workers} beside Mosec, LitServe, MLServer, BentoML, Ray Serve and plain FastAPI, requests/s "
                "at concurrency 1, 8, 32, 128: this service; the best of the others",
                f"{_rates([_rate(servers[own], connections) for connections in CONNECTIONS])}; {_rates(best)}",
                "the same" if rows else "`python -m benchmarks peers --rounds 2 --seconds 2`",
            ]
        )
    return rows


def _rate(server: Mapping[str, Any], connections: str) -> float:
    measured = server.get(connections)
    return 0.0 if measured is None else float(measured["requests_per_second"])


def _rates(rates: Sequence[float]) -> str:
    return ", ".join(f"{rate:,.0f}" for rate in rates)


def _likelihoods() -> list[list[str]]:
    figures = _figures("likelihoods")
    units = {"cifar10-pixelcnn": "images", "ptb-char-qrnn": "symbols", "ptb-word-qrnn": "symbols"}
    batches = {model: figures[model]["batch_32"] for model in units}
    listed = ", ".join(
        f"`{model}` ({batch[f'onnxruntime_{units[model]}_per_second']:,.0f} {units[model]}/s)"
        for model, batch in batches.items()
    )
    ratios = ", ".join(f"{batch['onnxruntime_speedup']:.1f}x" for batch in batches.values())
    return [[f"ONNX Runtime beside torch at batch 32: {listed}", ratios, "`python -m benchmarks likelihoods`"]]


def _training() -> list[list[str]]:
    figures = _figures("training-wrn-40-2")
    return [
        [
            f"WRN-40-2 training beside a plain PyTorch loop ({figures['plain_loop_images_per_second']:,.0f} images/s)",
            f"{figures['fit_speedup']:.2f}x",
            "`python -m benchmarks training`",
        ],
        [
            "the same as a share of what one large matrix product reaches "
            f"({figures['matrix_product_gflop_per_second']:,.0f} GFLOP/s, {figures['precision']}); the plain loop",
            f"{figures['fit_share_of_matrix_product']:.2f}; {figures['plain_loop_share_of_matrix_product']:.2f}",
            "the same",
        ],
    ]
