"""The scores of a bundle's sample input, which a service compares with its own when it loads the bundle."""

import math
from pathlib import Path
from typing import Any

import onnxruntime
from numpy.typing import NDArray

from bundle import ImageInput, SampleScores, TextEncoder, TextInput, decode_image, pad_tokens


def sample_scores(folder: Path, graph: str, spec: ImageInput | TextInput, scores: list[str]) -> SampleScores | None:
    """The scores of the file `sample.*` in `folder`; None if there is no such file, or a score is not finite.

    Args:
        folder: The folder of a bundle without its manifest.
        graph: The file name of the graph, whose outputs are named after the scores.
        spec: The input of the model.
        scores: The names of the scores.
    """
    sample = next(iter(sorted(folder.glob("sample.*"))), None)
    if sample is None:
        return None
    feed: dict[str, NDArray[Any]]
    if isinstance(spec, ImageInput):
        feed = {"images": decode_image(sample.read_bytes(), spec)[None]}
    else:
        # As the service reads the file.
        text = sample.read_text(encoding="utf-8-sig", errors="replace").strip()
        tokens, lengths = pad_tokens([TextEncoder.load(folder / spec.tokenizer, spec.max_tokens).encode(text)])
        feed = {"tokens": tokens, "lengths": lengths}
    session = onnxruntime.InferenceSession(folder / graph, providers=["CPUExecutionProvider"])
    values = {name: float(rows[0]) for name, rows in zip(scores, session.run(scores, feed), strict=True)}
    return SampleScores(file=sample.name, scores=values) if all(map(math.isfinite, values.values())) else None
