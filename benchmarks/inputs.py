"""Inputs of the serving benchmarks: the bundle to serve, the file to score, and that file as graph input."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.models import NETWORKS, make_bundle
from bundle import MANIFEST_NAME, Bundle, ImageInput, decode_image, load_bundle, pad_tokens


def prepare_bundle(repository: Path, model: str) -> Bundle:
    """Create the bundle of a network with random weights in `repository`, or copy the bundle in the folder `model`."""
    if model in NETWORKS:
        return load_bundle(make_bundle(model, repository))
    source = Path(model)
    if not (source / MANIFEST_NAME).exists():
        raise SystemExit(f"unknown model {model}: choose among {', '.join(NETWORKS)}, or name a bundle's folder")
    target = repository / source.resolve().parent.name / source.name
    shutil.copytree(source, target)
    return load_bundle(target)


def sample_file(bundle: Bundle, folder: Path) -> Path:
    """The bundle's sample file; for a bundle without one, a picture of noise written to `folder`."""
    for name in ("sample.png", "sample.txt"):
        if name in bundle.manifest.files:
            return bundle.path / name
    picture = folder / "image.png"
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(picture)
    return picture


def graph_inputs(bundle: Bundle, sample: Path) -> dict[str, NDArray[Any]]:
    """The graph's inputs, a batch of one, for the file `sample`, prepared as in the service."""
    if bundle.text_encoder is not None:
        tokens, lengths = pad_tokens([bundle.text_encoder.encode(sample.read_text(encoding="utf-8"))])
        return {"tokens": tokens, "lengths": lengths}
    spec = bundle.manifest.input
    assert isinstance(spec, ImageInput), "a model without a tokenizer takes images"
    return {"images": decode_image(sample.read_bytes(), spec)[None]}


def save_graph_inputs(bundle: Bundle, sample: Path, file: Path) -> dict[str, NDArray[Any]]:
    """Return `graph_inputs`, and save them to `file` for `benchmarks.upper_limit`."""
    inputs = graph_inputs(bundle, sample)
    np.savez(file, **inputs)  # type: ignore[arg-type]  # numpy's stub takes any name for `allow_pickle`
    return inputs
