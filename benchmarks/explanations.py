"""The time of a batch with and without the outputs that explain it, and of a text with and without its variants."""

import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.models import NETWORKS, make_bundle
from benchmarks.recurrence import compare
from benchmarks.results import report
from bundle import load_bundle
from service.inference.engine import Engine
from service.inference.providers import CPU, Provider
from service.inputs.modality import Array
from service.scoring.token_changes import LeaveOneOut

BATCH_SIZES = (1, 16)
TEXT_MODEL = "newsgroups-gru/1"
TOKENS = (10, 30, 100)
MAX_BATCH = 64


def measure(rounds: int, seconds: float, models: Path) -> None:
    """Report the milliseconds of both on one core, and their ratio."""
    figures: dict[str, object] = {"rounds": rounds}
    with tempfile.TemporaryDirectory() as folder:
        for name in NETWORKS:
            bundle = load_bundle(make_bundle(name, Path(folder), evidence=True))
            engine = Engine(bundle, Provider(CPU, required=True), cores=1)
            for size in BATCH_SIZES:
                images = list(np.random.default_rng(0).integers(0, 256, (size, 32, 32, 3), dtype=np.uint8))
                runs = {"scores": partial(engine.run, images), "evidence": partial(engine.explain, images)}
                figures[f"{name}_batch_{size}"] = compare(runs, rounds, seconds)
    bundle = load_bundle(models / TEXT_MODEL)
    encoder = bundle.text_encoder
    assert encoder is not None, "the model reads texts"
    engine = Engine(bundle, Provider(CPU, required=True), cores=1)
    for tokens in TOKENS:
        text = np.arange(10, 10 + tokens)
        without = LeaveOneOut.of([text], encoder, tokens).texts
        batches = [without[start : start + MAX_BATCH] for start in range(0, tokens, MAX_BATCH)]
        computed = {
            "text": partial(_run_all, engine, [[text]]),
            "token_changes": partial(_run_all, engine, [[text], *batches]),
        }
        figures[f"{TEXT_MODEL.split('/', maxsplit=1)[0]}_{tokens}_tokens"] = compare(computed, rounds, seconds)
    report("explanations", figures, ("onnxruntime", "numpy"))


def _run_all(engine: Engine, batches: Sequence[Sequence[Array]]) -> None:
    for batch in batches:
        engine.run(batch)
