"""The benchmarks' command line: each prints a ratio taken in one run and writes it to benchmarks/results/."""

from typing import Annotated

import typer

app = typer.Typer(help=__doc__, invoke_without_command=True)

Rounds = Annotated[int, typer.Option(help="Interleaved rounds; medians are reported.")]
Seconds = Annotated[float, typer.Option(help="Length of one measurement.")]


@app.callback()
def everything(context: typer.Context) -> None:
    """Run every benchmark when none is named."""
    if context.invoked_subcommand is None:
        serving()
        training()
        recurrence()


@app.command()
def serving(rounds: Rounds = 5, seconds: Seconds = 4.0, model: str = "wrn-40-2") -> None:
    """HTTP throughput at concurrency 32 as a share of ONNX Runtime alone; latency added at concurrency 1."""
    from benchmarks.serving import measure

    measure(rounds, seconds, model)


@app.command()
def training(rounds: Rounds = 5, steps: Annotated[int, typer.Option(help="Timed steps in a round.")] = 12) -> None:
    """Training throughput beside a plain PyTorch loop of the same model and data."""
    from benchmarks.training import measure

    measure(rounds, steps)


@app.command()
def recurrence(rounds: Rounds = 5, seconds: Seconds = 0.5) -> None:
    """The QRNN's recurrence step by step beside a parallel scan, in torch and in ONNX Runtime."""
    from benchmarks.recurrence import measure

    measure(rounds, seconds)


if __name__ == "__main__":
    app()
