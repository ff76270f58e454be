"""Adds the evidence of positions to an exported classifier of images, if it decomposes the logits exactly."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bundle import EvidenceSpec
from training.models.score_heads import EVIDENCE, ScoredClassifier, ScoredModel
from training.scoring.logits import recorded_logits

_RELATIVE_TOLERANCE = 1e-3


def with_evidence(model: ScoredModel, rows: NDArray[Any]) -> ScoredModel:
    """`model` with evidence as a further output, or `model` itself if its logits are no sums over positions.

    Args:
        model: The model; it is set to evaluation mode and moved to the CPU.
        rows: Stored inputs `[N, ...]` on which the sums are compared with the logits.
    """
    if not isinstance(model, ScoredClassifier) or (explained := model.with_evidence()) is None:
        return model
    explained = explained.eval().cpu()
    with torch.inference_mode(), recorded_logits(explained) as logits:
        values = explained(*explained.model.prepare(torch.from_numpy(rows)))
    outputs = dict(zip(explained.output_names, values, strict=True))
    predicted = outputs["prediction"].numpy()
    sums = outputs[EVIDENCE].sum(dim=(1, 2)).numpy() + np.asarray(explained.bias(logits.array().shape[1]))[predicted]
    largest = logits.array().max(axis=1)
    is_exact = np.allclose(sums, largest, rtol=_RELATIVE_TOLERANCE, atol=_RELATIVE_TOLERANCE)
    return explained if is_exact else model


def evidence_of(model: ScoredModel, classes: int) -> EvidenceSpec | None:
    """The evidence that `model`, with this number of classes, has among its outputs; None if it has none."""
    bias = model.bias(classes) if isinstance(model, ScoredClassifier) else None
    return None if bias is None else EvidenceSpec(output=EVIDENCE, bias=tuple(bias))
