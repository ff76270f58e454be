"""`python -m service score-dataset`: the command line of a run, and what it says."""

import argparse
import sys
from collections.abc import Iterator, Sequence
from typing import NoReturn

from tqdm import tqdm

from bundle import MANIFEST_NAME, Bundle, BundleError, sha256_file
from service.errors import InvalidParameter
from service.inference.cpu_count import available_cores
from service.inference.onnx_session import EngineError
from service.inference.providers import PROVIDER_OF_SETTING, ProviderUnavailable
from service.inputs.modality import Limits
from service.offline.arguments import parse_arguments
from service.offline.errors import ClusterUnavailable, OfflineError, changed
from service.offline.job import Job
from service.offline.model_choice import choose_bundle
from service.offline.output import Output, RunFile, Terms
from service.offline.parts import score_parts
from service.offline.scoring import BatchScorer
from service.offline.sources import open_source
from service.offline.summary import in_words, summarise
from service.scoring.options import OptionLimits, parse_options
from service.scoring.scorer import Scorer
from service.settings import Settings, SettingsError, load_settings
from service.telemetry.logs import configure_logs

# Logs of jobs without a terminal get a line now and then, not ten a second.
_SECONDS_BETWEEN_LINES = 30


def main(argv: Sequence[str]) -> int:
    """Score a collection; see `--help` for the exit codes."""
    arguments, flags = parse_arguments(argv)
    try:
        settings = load_settings(flags)
        configure_logs(settings)
        output = _run(arguments, settings)
    except (OfflineError, InvalidParameter, SettingsError, ProviderUnavailable) as error:
        print(f"score-dataset: {error}", file=sys.stderr)
        return error.exit_code if isinstance(error, OfflineError) else 2
    except (BundleError, EngineError) as error:
        print(f"score-dataset: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("score-dataset: interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    print(in_words(output))
    return 0 if output.run.complete is not None and output.run.complete.scored else 1


def _run(arguments: argparse.Namespace, settings: Settings) -> Output:
    bundle = choose_bundle(settings.models, arguments.model, arguments.version)
    manifest = bundle.manifest
    on_cluster = arguments.ray is not None
    names = tuple(score.name for score in manifest.scores)
    given = {"scores": arguments.scores, "alpha": arguments.alpha}
    options = parse_options(given, OptionLimits(names, manifest.default_score, settings.timeout_ms))
    reader = Scorer.of(bundle, settings.alpha)
    for warning in reader.warnings(options):
        print(f"score-dataset: {warning}", file=sys.stderr)
    job = Job(
        bundle=bundle.path,
        source=open_source(arguments.source, manifest.modality, arguments.column, arguments.key),
        options=options,
        alpha=reader.alpha if options.alpha is None else options.alpha,
        # Workers of a cluster must all compute with the same: `auto` would be each one's own choice.
        provider="cpu" if on_cluster and settings.provider == "auto" else settings.provider,
        limits=Limits(settings.max_pixels, settings.max_text_chars),
        batch=settings.max_batch,
        part_size=arguments.part_size,
    )
    scorer = None if on_cluster else BatchScorer(job)
    run = _run_file(job, bundle, PROVIDER_OF_SETTING[job.provider] if scorer is None else scorer.provider)
    output = Output.begin(arguments.output, run, overwrite=arguments.overwrite)
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
        raise changed(job.source.identity.path)
    output.finish(summarise(output))
    return output


def _score_on_cluster(
    address: str, job: Job, parts: Sequence[int], bar: "tqdm[NoReturn]"
) -> Iterator[tuple[int, bytes]]:
    try:
        from service.offline import cluster  # noqa: PLC0415  # large, and only for those who have a cluster
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
