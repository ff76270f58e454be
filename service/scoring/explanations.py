"""The kinds of explanations that a model has."""

from typing import Literal

from bundle import Manifest

Explanation = Literal["pixels", "tokens", "evidence", "token_changes"]


def explanations_of(manifest: Manifest) -> tuple[Explanation, ...]:
    """The kinds of explanations of the model of `manifest`; none if it cannot explain its scores."""
    if manifest.likelihood is not None:
        return ("pixels",) if manifest.modality == "image" else ("tokens",)
    if manifest.evidence is not None:
        return ("evidence",)
    if manifest.task == "classification" and manifest.modality == "text":
        return ("token_changes",)
    return ()
