"""Drift evidence: how strongly a model's traffic contradicts being exchangeable with its calibration data.

The evidence is a conformal test martingale (Vovk, Gammerman & Nouretdinov 2003, "Testing exchangeability on-line";
Vovk et al. 2021, "Retrain or not retrain: conformal test martingales for change-point detection"). Its value, the
wealth, starts at 1 and is multiplied by the result of a bet on each next input. While traffic and calibration data are
exchangeable, the expected result of every bet is 1 given all earlier inputs, and Ville's inequality holds:

    P(the wealth ever reaches w) <= 1 / w,

for any number of inputs, and however often the wealth is read.

**The odds.** Calibration p-values of a fixed calibration set are not uniform: given n scores, the share of inputs with
p <= a differs from a by about sqrt(a (1 - a) / n), and bets at the odds a would raise the wealth without drift. But the
n scores divide the line into n + 1 gaps whose probabilities are Dirichlet(1, ..., 1) distributed, for any distribution
of the scores. The next input therefore lies beyond the k-th largest calibration score with probability k / (n + 1), and
after t inputs of which c were beyond it, with probability

    U = (k + c) / (n + 1 + t),

exactly, given all earlier inputs (Polya's urn). These are the odds. They adapt to the traffic of this deployment while
it stays the same, and need no allowance for the calibration's sampling error. Tied scores are ordered by a random draw,
as in smoothed conformal p-values, which keeps the probability exact for discrete scores.

**The bets.** A component of the martingale assumes that a share s of the inputs comes from another distribution and
lies beyond one of J levels, each equally likely: its wealth is multiplied by 1 + s (g - 1), with g the mean over the
levels of 1[beyond the level] / U. The expectation of this factor is 1 at these odds. The wealth is the mean over the
components, one for each of a few shares. No component bets on traffic that is less anomalous than the calibration data.

**The start.** Drift may begin after a long time without drift, in which a component that bets from the first input on
loses nearly all of its wealth. Therefore the initial wealth is released over time: each component gets
w_t = H / ((H + t - 1) (H + t)) just before input t, and the rest, H / (H + t), is not used for bets. This is the
mixture over all times at which drift may begin (Shiryaev's rule with a prior), and still a martingale that starts at 1.

**Several workers.** Each of N workers has a martingale of a part of the traffic. The product of their wealths is not
valid: the odds of each are fair given its own inputs, but all share one calibration set, and if its tail is too thin by
chance, all wealths grow. The mean of their largest wealths is not valid either, because these did not exist at one
time. The mean of N wealths at one time is valid for any dependence (Vovk & Wang 2021, "E-values: calibration,
combination and applications", section 3). The largest wealth ever, divided by N, is valid by the union bound:
P(any ever reaches N w) <= N / (N w).
"""

import math
from bisect import bisect_left
from collections.abc import Iterable
from random import Random

from bundle import Calibration

LEVELS = (0.005, 0.02, 0.05, 0.1, 0.2)
SHARES = (0.01, 0.03, 0.1, 0.3, 0.9)
HORIZON = 10_000
# Limiting a component's wealth keeps the bound, because it only lowers the wealth; an overflow would not keep it.
_MAX_WEALTH = 1e15


def combined_evidence(evidences: Iterable[float], workers: int) -> float:
    """The evidence of several workers as one, with the guarantee of one: the largest wealth, divided by their number.

    Args:
        evidences: The `DriftEvidence.log10` of some of the workers.
        workers: The number of all workers.
    """
    return max(0.0, max(evidences) - math.log10(workers))


class DriftEvidence:
    """The evidence against one model's traffic, updated by the anomaly of each input in a few microseconds.

    Exchangeable traffic reaches `log10` >= e with probability at most 10 ** -e between two resets, over the draws of
    calibration data and traffic. Not thread-safe.
    """

    def __init__(self, calibration: Calibration, seed: int = 0, horizon: int = HORIZON) -> None:
        """No evidence yet.

        Args:
            calibration: The calibration of the score whose anomalies are observed.
            seed: Seed of the order among tied scores.
            horizon: The number of inputs until half of the initial wealth is released, H in the module's description.
        """
        self._random = Random(seed)  # noqa: S311 - it keeps no secret
        self._horizon = horizon
        ordered = sorted((anomaly, self._random.random()) for anomaly in calibration.anomaly.tolist())
        self._all_gaps = calibration.n + 1
        # A small calibration set cannot resolve the smallest levels; there is no gap to bet on.
        self._gaps = [k for k in sorted({math.floor(level * self._all_gaps) for level in LEVELS}, reverse=True) if k]
        self._limits = [ordered[-k] for k in self._gaps]
        self.reset()

    @property
    def wealth(self) -> float:
        """The current wealth; its expectation is 1 on exchangeable traffic."""
        return self._horizon / (self._horizon + self._seen) + sum(self._components) / len(self._components)

    @property
    def log10(self) -> float:
        """The evidence: log10 of the largest wealth since the start or the last reset; from 0 (none) to 15."""
        return math.log10(self._largest)

    def reset(self) -> None:
        """Discard the evidence of all earlier traffic."""
        self._seen = 0
        self._counts = list(self._gaps)
        self._components = [0.0] * len(SHARES)
        self._largest = 1.0

    def update(self, anomaly: float) -> None:
        """Update the evidence with the anomaly of the next input, a finite number."""
        beyond = bisect_left(self._limits, (anomaly, self._random.random()))
        counts, possible = self._counts, self._all_gaps + self._seen
        gain = 0.0
        for level in range(beyond):
            gain += possible / counts[level]
            counts[level] += 1
        edge = gain / len(counts) - 1 if counts else 0.0
        self._seen += 1
        released = self._horizon / ((self._horizon + self._seen - 1) * (self._horizon + self._seen))
        self._components = [
            min((wealth + released) * (1 + share * edge), _MAX_WEALTH)
            for wealth, share in zip(self._components, SHARES, strict=True)
        ]
        self._largest = max(self._largest, self.wealth)
