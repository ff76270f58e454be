"""What the serving benchmarks send: a bundle to serve, a file to score with it, and that file as the graph takes it."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.models import NETWORKS, make_bundle
from bundle import MANIFEST_NAME, Bundle, ImageInput, decode_image, load_bundle, pad_tokens


def bundle_in(repository: Path, model: str) -> Bundle:
    """The bundle in `repository`: made of random weights, or a copy of the one in the folder `model`."""
    if model in NETWORKS:
        return load_bundle(make_bundle(model, repository))
    source = Path(model)
    if not (source / MANIFEST_NAME).exists():
        raise SystemExit(f"unknown model {model}: choose among {', '.join(NETWORKS)}, or name a bundle's folder")
    target = repository / source.resolve().parent.name / source.name
    shutil.copytree(source, target)
    return load_bundle(target)


def sample_of(bundle: Bundle, folder: Path) -> Path:
    """The bundle's own sample file, or for one without a picture of noise in `folder`."""
    for name in ("sample.png", "sample.txt"):
        if name in bundle.manifest.files:
            return bundle.path / name
    picture = folder / "image.png"
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(picture)
    return picture


def one_input(bundle: Bundle, body: Path) -> dict[str, NDArray[Any]]:
    """What the graph takes for the input in the file `body`, as serving prepares it."""
    if bundle.text_encoder is not None:
        tokens, lengths = pad_tokens([bundle.text_encoder.encode(body.read_text(encoding="utf-8"))])
        return {"tokens": tokens, "lengths": lengths}
    spec = bundle.manifest.input
    assert isinstance(spec, ImageInput), "a model without a tokenizer takes images"
    return {"images": decode_image(body.read_bytes(), spec)[None]}


def keep_input(bundle: Bundle, body: Path, file: Path) -> dict[str, NDArray[Any]]:
    """`one_input`, also kept in `file` for `benchmarks.ceiling`."""
    one = one_input(bundle, body)
    np.savez(file, **one)  # type: ignore[arg-type]  # to the stub a name could be allow_pickle
    return one
