"""The sample's scores at the export are compared with those of the engine."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bundle import Bundle, SampleScores, load_bundle, seal_bundle
from service.inference.engine import Engine
from service.inference.onnx_session import EngineError
from service.inference.providers import CPU, Provider
from tests.service.support.pictures import picture
from tests.support.tiny_bundle import make_tiny_bundle
from tests.support.tiny_text_bundle import make_tiny_text_bundle
from training.export.sample_scores import sample_scores

PROVIDER = Provider(CPU, required=True)


def with_sample(path: Path, sample: str, content: bytes, error: float = 0.0, **changes: Any) -> Bundle:
    """The bundle with a sample whose stored scores are wrong by `error`."""
    (path / sample).write_bytes(content)
    fields = load_bundle(path, verify=False).manifest.model_dump(exclude={"files"}) | changes
    manifest = load_bundle(path, verify=False).manifest
    stored = sample_scores(path, manifest.model, manifest.input, [score.name for score in manifest.scores])
    assert stored is not None
    scores = {name: value + error for name, value in stored.scores.items()}
    seal_bundle(path, fields | {"sample": SampleScores(file=sample, scores=scores)})
    return load_bundle(path)


SAMPLES = [
    (make_tiny_bundle, "sample.png", picture()),
    (make_tiny_text_bundle, "sample.txt", b"\xef\xbb\xbfred or blue\n"),
]


@pytest.mark.parametrize(("make", "sample", "content"), SAMPLES, ids=["image", "text"])
def test_equal_scores_are_served_and_others_are_refused(
    tmp_path: Path, make: Callable[[Path], Path], sample: str, content: bytes
) -> None:
    path = make(tmp_path)
    Engine(with_sample(path, sample, content), PROVIDER, cores=1).warm_up(4)
    Engine(with_sample(path, sample, content, error=1e-4), PROVIDER, cores=1).warm_up(4)
    engine = Engine(with_sample(path, sample, content, error=0.05), PROVIDER, cores=1)
    with pytest.raises(EngineError, match=r"the sample's \w+ is .* on CPUExecutionProvider and .* at the export"):
        engine.warm_up(4)


def test_lower_precision_has_a_wider_tolerance_and_int8_only_a_warning(tmp_path: Path) -> None:
    path = make_tiny_bundle(tmp_path)
    Engine(with_sample(path, "sample.png", picture(), 5e-3, precision="fp16"), PROVIDER, cores=1).warm_up(4)
    with pytest.raises(EngineError, match="at the export"):
        Engine(with_sample(path, "sample.png", picture(), 0.5, precision="fp16"), PROVIDER, cores=1).warm_up(4)
    Engine(with_sample(path, "sample.png", picture(), 0.5, precision="int8"), PROVIDER, cores=1).warm_up(4)


def test_bundles_without_stored_scores_are_served(tmp_path: Path) -> None:
    path = make_tiny_bundle(tmp_path)
    bundle = with_sample(path, "sample.png", picture())
    without = replace(bundle, manifest=bundle.manifest.model_copy(update={"sample": None}))
    Engine(without, PROVIDER, cores=1).warm_up(4)
