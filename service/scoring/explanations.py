"""The kinds of explanations that a model has."""

from typing import Literal

from bundle import Manifest

Explanation = Literal["pixels", "tokens", "evidence", "token_changes", "neighbours"]


def explanations_of(manifest: Manifest) -> tuple[Explanation, ...]:
    """The kinds of explanations of the model of `manifest`; none if it cannot explain its scores."""
    kinds: list[Explanation] = []
    if manifest.likelihood is not None:
        kinds.append("pixels" if manifest.modality == "image" else "tokens")
    if manifest.evidence is not None:
        kinds.append("evidence")
    if manifest.task == "classification" and manifest.modality == "text":
        kinds.append("token_changes")
    if manifest.neighbours is not None:
        kinds.append("neighbours")
    return tuple(kinds)
