"""The benchmarks' command line. Each benchmark prints its figures and writes them to benchmarks/results/."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help=__doc__, invoke_without_command=True)

Rounds = Annotated[int, typer.Option(help="Interleaved rounds; medians are reported.")]
ServedModel = Annotated[str, typer.Option(help="Name of a network with random weights, or a bundle's folder.")]
Seconds = Annotated[float, typer.Option(help="Length of one measurement.")]


@app.callback()
def run_all(context: typer.Context) -> None:
    """Without a command, runs every benchmark that needs no data."""
    if context.invoked_subcommand is None:
        peers()
        overload()
        serving()
        training()
        recurrence()
        likelihoods()
        explanations()
        decoding()
        startup()
        memory()


@app.command()
def serving(rounds: Rounds = 5, seconds: Seconds = 4.0, model: ServedModel = "wrn-40-2") -> None:
    """HTTP throughput at concurrency 32 as a share of ONNX Runtime alone; latency added at concurrency 1."""
    from benchmarks.serving import measure

    measure(rounds, seconds, model)


@app.command()
def peers(
    models: Annotated[
        str, typer.Option(help="Comma-separated names of networks and folders of bundles.")
    ] = "wrn-40-2,tiny,models/newsgroups-gru/1",
    concurrency: Annotated[str, typer.Option(help="Comma-separated numbers of connections.")] = "1,8,32,128",
    rounds: Rounds = 3,
    seconds: Seconds = 3.0,
    names: Annotated[str, typer.Option("--peers", help="Comma-separated names of other servers, or all.")] = "all",
    workers: Annotated[
        int | None,
        typer.Option(help="Worker processes of each other server, which share the cores. Default: one per core."),
    ] = None,
    batch: Annotated[int, typer.Option(help="Largest batch of the other servers.")] = 64,
) -> None:
    """This service compared with ONNX Runtime alone, plain FastAPI and the servers from `install-peers`."""
    from benchmarks.side_by_side import measure

    counts = [int(number) for number in concurrency.split(",")]
    measure(models.split(","), counts, rounds, seconds, names.split(","), workers, batch)


@app.command()
def install_peers() -> None:
    """Install the other model servers, each into its own environment below .peers/."""
    from benchmarks.install_peers import install

    install()


@app.command()
def overload(
    model: ServedModel = "wrn-40-2",
    factor: Annotated[float, typer.Option(help="Request rate as a multiple of the closed loop's throughput.")] = 10.0,
    seconds: Seconds = 10.0,
    timeout_ms: Annotated[int, typer.Option(help="Deadline of each request.")] = 1000,
) -> None:
    """Goodput, latency, rejections and memory at ten times the sustainable rate, sent by an open loop."""
    from benchmarks.overload import measure

    measure(model, factor, seconds, timeout_ms)


@app.command()
def topology(
    rounds: Rounds = 3,
    seconds: Seconds = 3.0,
    model: Annotated[str, typer.Option(help="Bundle of the comparison with workers.")] = "models/cifar10-oe/1",
) -> None:
    """Front ends with an engine process: requests per front end, 64-image requests, and a comparison with workers."""
    from benchmarks.topology import measure

    measure(rounds, seconds, model)


@app.command()
def training(rounds: Rounds = 5, steps: Annotated[int, typer.Option(help="Timed steps in a round.")] = 12) -> None:
    """Training throughput compared with a plain PyTorch loop on the same model and data, for images and texts."""
    from benchmarks import text_training
    from benchmarks import training as image_training

    image_training.measure(rounds, steps)
    text_training.measure(rounds, 10 * steps)


@app.command()
def recurrence(rounds: Rounds = 5, seconds: Seconds = 0.5) -> None:
    """The QRNN's recurrence step by step compared with a parallel scan, in torch and in ONNX Runtime."""
    from benchmarks.recurrence import measure

    measure(rounds, seconds)


@app.command()
def likelihoods(rounds: Rounds = 5, seconds: Seconds = 2.0, models: Path = Path("models")) -> None:
    """Scoring with the shipped density and language models in torch and in ONNX Runtime."""
    from benchmarks.likelihoods import measure

    measure(rounds, seconds, models)


@app.command()
def explanations(rounds: Rounds = 5, seconds: Seconds = 1.0, models: Path = Path("models")) -> None:
    """Batches with and without the evidence of positions, texts with and without the changes of tokens, on one core."""
    from benchmarks.explanations import measure

    measure(rounds, seconds, models)


@app.command()
def decoding(rounds: Rounds = 5) -> None:
    """The service's image decoding compared with Pillow, and with OpenCV and simplejpeg if they are installed."""
    from benchmarks.decoding import measure

    measure(rounds)


@app.command()
def startup(rounds: Rounds = 3, models: Path = Path("models")) -> None:
    """Time until the port is open and until the models are warm; what caching optimised graphs would save."""
    from benchmarks.startup import measure

    measure(rounds, models)


@app.command()
def memory(
    models: Path = Path("models"),
    seconds: Annotated[float, typer.Option(help="Length of the mixed load on all models together.")] = 120.0,
    together_only: Annotated[bool, typer.Option(help="Skip the models alone.")] = False,
) -> None:
    """Resident memory without models, with each model alone and with all, after warm-up and under mixed load."""
    from benchmarks.memory import measure

    measure(models, seconds, together_only=together_only)


@app.command()
def drift(
    data: Annotated[Path, typer.Option(help="Folder with cifar10/test.parquet and gtsrb/test.parquet.")],
    share: Annotated[float, typer.Option(help="Share of traffic signs in the drifted traffic.")] = 0.02,
    orders: Annotated[int, typer.Option(help="Random orders of the traffic.")] = 20,
    history: Annotated[int, typer.Option(help="In-distribution inputs before the traffic signs.")] = 100_000,
) -> None:
    """The drift alarm: false alarms on CIFAR-10 test images, and the delay until it detects traffic signs."""
    from benchmarks.drift import measure

    measure(data, share, orders, history)


@app.command()
def seeds(
    recipe: Annotated[Path, typer.Argument(help="Recipe file; see training/recipes.", show_default=False)],
    data: Annotated[Path, typer.Option(help="Folder that the recipe's paths are relative to.")],
    numbers: Annotated[str, typer.Option("--seeds", help="Comma-separated seeds, at least two.")] = "1,2,3",
) -> None:
    """Train a recipe with several seeds: means and standard deviations of its stages' errors and detection metrics."""
    from benchmarks.seeds import measure

    measure(recipe, data, [int(number) for number in numbers.split(",")])


@app.command()
def features(
    data: Annotated[Path, typer.Option(help="Folder that the recipe's paths are relative to.")],
    recipe: Annotated[Path, typer.Option(help="Recipe with a backbone.")] = Path(
        "training/recipes/flowers-efficientnet.yaml"
    ),
) -> None:
    """AUROC of scores of a backbone's features, also of ViM and fDBD, on validation and test outliers."""
    from benchmarks.feature_scores import measure

    measure(recipe, data)


@app.command()
def gpu(
    out: Annotated[Path, typer.Option(help="The JSON file.")] = Path("benchmarks/results/gpu.json"),
    seconds: Annotated[float, typer.Option(help="Time for all steps; training takes what the others leave.")] = 530,
    models: Path = Path("models"),
    data: Annotated[Path | None, typer.Option(help="Folder with the data of the paper's CIFAR-10 schedule.")] = None,
    dry: Annotated[bool, typer.Option(help="Run every step for a moment, with or without a GPU.")] = False,
) -> None:
    """A first run on a GPU: placement, parity, batch sizes, options, CUDA graphs, the service, tests and training."""
    from benchmarks.gpu import measure

    measure(out, seconds, models, data, dry=dry)


if __name__ == "__main__":
    app()
