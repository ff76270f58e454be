"""The command `score-dataset`: its command line, its run, and its exit codes."""

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NoReturn

from tqdm import tqdm

from bundle import DEFAULT_MAX_PIXELS, MANIFEST_NAME, Bundle, BundleError, sha256_file
from datafiles import DataFileError
from service.cli import add_settings
from service.cpu_count import available_cores
from service.errors import InvalidParameter
from service.inference.onnx_session import EngineError
from service.inference.providers import PROVIDER_OF_SETTING, ProviderUnavailable, choose_provider, largest_batch
from service.inputs.modality import Limits
from service.offline.batch_scorer import BatchScorer
from service.offline.errors import ClusterUnavailable, OfflineError, source_changed, unreadable_source
from service.offline.job import Job
from service.offline.model_choice import choose_bundle
from service.offline.open_source import open_source
from service.offline.output import Output, RunFile, Terms
from service.offline.parts import score_parts
from service.scoring.options import OptionLimits, parse_options
from service.scoring.scorer import Scorer
from service.settings import Settings, SettingsError, load_settings
from service.telemetry.logs import configure_logs

SETTINGS = ("models", "provider", "threads", "max_batch", "max_pixels", "max_text_chars")
"""The service's settings that apply to this command, each with its flag and its environment variable."""

_PART_SIZE = 10_000
# How often progress is printed without a terminal, where each update is a line of a log.
_SECONDS_BETWEEN_LINES = 30

_EPILOG = """\
example:
  python -m service score-dataset questions.csv --model trec-gru --output scored --alpha 0.01 --scores msp,energy
  python -c "import pandas; print(pandas.read_parquet('scored').query('flagged == True'))"

Interrupted, even by kill -9? Run the same command again: it resumes after the parts that are written, and the rows
are those of a run without interruption. An input that cannot be scored becomes a row with its error.

exit codes: 0 complete, 1 the model cannot be run or nothing could be scored, 2 something in the command is wrong,
130 interrupted."""


def main(argv: Sequence[str]) -> int:
    """Score a collection.

    Args:
        argv: The command line without the name of the command.

    Returns:
        The exit code, as `--help` explains it.
    """
    arguments, flags = _parse_arguments(argv)
    try:
        settings = _machine_independent(load_settings(flags))
        configure_logs(settings)
        output = _run(arguments, settings)
    except (OfflineError, InvalidParameter, SettingsError, ProviderUnavailable) as error:
        print(f"score-dataset: {error}", file=sys.stderr)
        return error.exit_code if isinstance(error, OfflineError) else 2
    except DataFileError as error:
        print(f"score-dataset: {unreadable_source(error)}", file=sys.stderr)
        return 2
    except (BundleError, EngineError) as error:
        print(f"score-dataset: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("score-dataset: interrupted; run the same command again to resume", file=sys.stderr)
        return 130
    print(output.describe())
    return 0 if output.run.complete is not None and output.run.complete.scored else 1


def _parse_arguments(argv: Sequence[str]) -> tuple[argparse.Namespace, dict[str, Any]]:
    """The arguments, and the settings among them as strings that are not validated."""
    parser = argparse.ArgumentParser(
        prog="ood-serve score-dataset",
        description="Score a collection of any size into parquet files, with the rows that the HTTP API would answer.",
        epilog=_EPILOG,
        formatter_class=lambda prog: argparse.RawDescriptionHelpFormatter(prog, max_help_position=30, width=110),
        allow_abbrev=False,
    )
    parser.add_argument(
        "source",
        type=Path,
        metavar="SOURCE",
        help="A .parquet file or a folder of them, a folder of images (at any depth), or texts: .txt (one a line), "
        ".jsonl, .csv.",
    )
    parser.add_argument(
        "--model", required=True, help="A name in the model repository, here a local folder; or a bundle's folder."
    )
    parser.add_argument("--version", help="Its version. [default the latest]")
    parser.add_argument("--output", required=True, type=Path, metavar="FOLDER", help="Where the parquet files go.")
    parser.add_argument("--column", help="The images or texts, in parquet, csv and jsonl. [default guessed; text]")
    parser.add_argument("--key", metavar="COLUMN", help="Copied to `key`. [default the row number; a file's path]")
    parser.add_argument("--scores", metavar="NAMES", help="As in msp,energy, or all. [default the model's own]")
    parser.add_argument("--alpha", help="False-flag rate. [default the model's own; env OOD_ALPHA]")
    parser.add_argument("--overwrite", action="store_true", help="Remove the rows of another run from the folder.")
    parser.add_argument(
        "--part-size",
        type=_positive,
        default=_PART_SIZE,
        metavar="N",
        help=f"Inputs per output file, which is what an interruption can lose. [default {_PART_SIZE}]",
    )
    parser.add_argument(
        "--ray",
        metavar="ADDRESS",
        help="Score on the Ray cluster there (host:port, auto, or local for one on this machine), a worker per core, "
        "or per GPU with --provider cuda. Its nodes have this package, and see SOURCE and the model at the same paths.",
    )
    add_settings(parser, SETTINGS)
    arguments = parser.parse_args(argv)
    return arguments, {name: getattr(arguments, name) for name in SETTINGS if hasattr(arguments, name)}


def _machine_independent(settings: Settings) -> Settings:
    """The settings with a limit on images that is the same on every machine that a job is resumed on."""
    if "max_pixels" in settings.model_fields_set:
        return settings
    return settings.model_copy(update={"max_pixels": DEFAULT_MAX_PIXELS})


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return number


def _run(arguments: argparse.Namespace, settings: Settings) -> Output:
    bundle = choose_bundle(settings.models, arguments.model, arguments.version)
    job = _job(arguments, settings, bundle)
    scorer = BatchScorer(job) if arguments.ray is None else None
    run = _run_file(job, bundle, PROVIDER_OF_SETTING[job.provider] if scorer is None else scorer.provider)
    output = Output.begin(arguments.output, run, overwrite=arguments.overwrite)
    with closing(output):
        parts = output.missing(job.parts)
        total = job.source.identity.inputs
        done = total - sum(job.inputs_of(part) for part in parts)
        if done:
            print(f"score-dataset: {done:,} of {total:,} inputs are in {output.folder} already", file=sys.stderr)
        interval = 0.5 if sys.stderr.isatty() else _SECONDS_BETWEEN_LINES
        with tqdm(total=total, initial=done, unit=" inputs", mininterval=interval) as bar:
            if scorer is not None:
                scored = score_parts(job, scorer, parts, settings.threads or available_cores(), bar.update)
            else:
                scored = _score_on_cluster(arguments.ray, job, parts, bar)
            for part, content in scored:
                output.write(part, content)
        if output.missing(job.parts):
            raise source_changed(job.source.identity.path)
        output.finish()
    return output


def _job(arguments: argparse.Namespace, settings: Settings, bundle: Bundle) -> Job:
    manifest = bundle.manifest
    names = tuple(score.name for score in manifest.scores)
    parameters = {"scores": arguments.scores, "alpha": arguments.alpha}
    options = parse_options(parameters, OptionLimits(names, manifest.default_score, settings.timeout_ms))
    scorer = Scorer.of(bundle, settings.alpha)
    for warning in scorer.warnings(options):
        print(f"score-dataset: {warning}", file=sys.stderr)
    # The workers of a cluster must agree on the provider; each would choose its own by `auto`.
    on_cluster = arguments.ray is not None
    provider = "cpu" if on_cluster and settings.provider == "auto" else settings.provider
    return Job(
        bundle=bundle.path,
        source=open_source(arguments.source, manifest.modality, arguments.column, arguments.key),
        options=options,
        alpha=scorer.alpha if options.alpha is None else options.alpha,
        provider=provider,
        limits=Limits(settings.max_pixels, settings.max_text_chars),
        batch=settings.max_batch or largest_batch(choose_provider(provider)[0]),
        part_size=arguments.part_size,
    )


def _score_on_cluster(
    address: str, job: Job, parts: Sequence[int], bar: "tqdm[NoReturn]"
) -> Iterator[tuple[int, bytes]]:
    try:
        from service.offline import cluster  # noqa: PLC0415  # a large import that only clusters need
    except ModuleNotFoundError as error:
        if error.name != "ray":
            raise
        raise ClusterUnavailable("--ray needs Ray. Install the extra: pip install '.[offline,ray]'") from None
    for part, content in cluster.score_on_cluster(address, job, parts):
        bar.update(job.inputs_of(part))
        yield part, content


def _run_file(job: Job, bundle: Bundle, provider: str) -> RunFile:
    manifest = bundle.manifest
    terms = Terms(
        source=job.source.identity,
        model=manifest.name,
        version=manifest.version,
        bundle_sha256=sha256_file(bundle.path / MANIFEST_NAME),
        provider=provider,
        scores=list(job.options.scores),
        alpha=job.alpha,
        max_pixels=job.limits.max_pixels,
        max_text_chars=job.limits.max_text_chars,
        batch=job.batch,
        part_size=job.part_size,
    )
    thresholds = Scorer.of(bundle, job.alpha).thresholds
    return RunFile(terms=terms, thresholds={score: thresholds[score] for score in job.options.scores})
