"""Usability: whether a detector flags enough of the out-of-distribution test data to be used, and what to do if not."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

Verdict = Literal["useful", "partly useful", "not useful", "unknown"]

USEFUL, PARTLY_USEFUL = 75.0, 25.0
"""The smallest flagged shares, in percent, of a useful and of a partly useful detector; docs/training.md has both."""


class Usability(BaseModel):
    """Whether a detector is usable, by the share of out-of-distribution test data that it flags.

    Attributes:
        verdict: `useful`, `partly useful` or `not useful`; `unknown` if it flags noise and nothing else was tested.
        stage: The stage that is exported.
        score: The score that the bundle decides by.
        alpha: The false-flag rate of the flags, in 0..1.
        sets: The sets that count: those of real data, without upper bounds if there are others.
        flagged: The flagged share of these sets, in percent, their mean.
        least: The set with the smallest flagged share.
        least_flagged: This share, in percent.
        false_flags: The flagged share of the in-distribution test set, in percent.
        advice: Sentences on what to do.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    verdict: Verdict
    stage: str
    score: str
    alpha: float
    sets: tuple[str, ...]
    flagged: float
    least: str
    least_flagged: float
    false_flags: float
    advice: tuple[str, ...] = ()

    def __str__(self) -> str:
        verdict, data = self.verdict.capitalize(), "the OOD test data"
        if self.verdict == "unknown":
            verdict, data = "Not known to be useful", "noise, the only OOD test data,"
        sets = f" (least: {self.least} {self.least_flagged:.1f}%)" if len(self.sets) > 1 else ""
        flags = f"flags {self.flagged:.1f}% of {data} at alpha {self.alpha:g}{sets}"
        false_flags = f"and {self.false_flags:.1f}% of the in-distribution test data"
        return " ".join([f"{verdict}: {flags} {false_flags}.", *self.advice])


def verdict_of(flagged: Sequence[float]) -> Verdict:
    """The verdict on a detector that flags these shares, in percent, of its test sets.

    A detector that flags less than `PARTLY_USEFUL` of a set is at most partly useful.
    """
    mean = float(np.mean(flagged))
    if mean >= USEFUL and min(flagged) >= PARTLY_USEFUL:
        return "useful"
    return "partly useful" if mean >= PARTLY_USEFUL else "not useful"
