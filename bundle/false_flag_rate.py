"""The false-flag rate of one calibration: its distribution over calibration sets, for a given size and alpha.

The conformal rule flags at most a share alpha of in-distribution inputs, on average over calibration sets (Bates,
Candes, Lei, Romano & Sesia 2021). A deployment has one calibration set, and for that set the realised rate is fixed.
Over calibration sets it follows the distribution

    Beta(k, n + 1 - k),  k = floor(alpha (n + 1)),

if anomalies have no ties. With ties the rule is more conservative: the realised rate is at most a rate with this
distribution, so the upper bound and the probability to exceed alpha still hold as upper bounds.
"""

import itertools
import math
from dataclasses import dataclass
from functools import lru_cache

from bundle.errors import CalibrationError

COVERAGE = 0.95
"""The share of calibration sets whose false-flag rate lies within the interval."""

_CONVERGED = 4e-16
_TINY = 1e-300


@dataclass(frozen=True, slots=True)
class FalseFlagRate:
    """The false-flag rate at `alpha` over calibration sets of `n` inputs; all rates are in 0..1.

    Attributes:
        n: The number of calibration inputs.
        alpha: The bound on the rate, on average over calibration sets.
        lower: The lower end of the 95% interval: the rate is smaller for 2.5% of calibration sets.
        upper: The upper end of the 95% interval: the rate is larger for 2.5% of calibration sets.
        exceeds_alpha: The share of calibration sets whose rate exceeds `alpha`.
    """

    n: int
    alpha: float
    lower: float
    upper: float
    exceeds_alpha: float

    @property
    def smallest_alpha(self) -> float:
        """The smallest usable alpha, 1 / (n + 1): below it no input can be flagged."""
        return smallest_alpha(self.n)

    @property
    def flags_nothing(self) -> bool:
        """Whether alpha is too small for `n` calibration inputs to flag any input."""
        return self.upper == 0.0

    @property
    def interval(self) -> str:
        """The 95% interval in percent, such as "0.33% to 2.04%"."""
        return f"{percent(self.lower)} to {percent(self.upper)}"

    def __str__(self) -> str:
        """One sentence for users: the bound on average, the interval, and the smallest usable alpha."""
        smallest = f"smallest usable alpha {_rounded_up(self.smallest_alpha):g}"
        if self.flags_nothing:
            return f"alpha {self.alpha:g} flags nothing with {self.n:,} calibration inputs; {smallest}"
        limit = f"{100 * self.alpha:g}%"
        return (
            f"false flags at alpha {self.alpha:g}: at most {limit} on average over calibration sets; with {self.n:,} "
            f"calibration inputs {self.interval} for {100 * COVERAGE:g}% of the sets, above {limit} for "
            f"{100 * self.exceeds_alpha:.0f}% of them; {smallest}"
        )


def percent(rate: float) -> str:
    """`rate` as a percentage with two decimals; below 0.01% with two significant digits."""
    value = 100 * rate
    return f"{value:.2f}%" if value >= 0.01 else f"{value:.2g}%"


def smallest_alpha(n: int) -> float:
    """The smallest possible p-value of `n` calibration scores, 1 / (n + 1): below this alpha nothing can be flagged."""
    return 1 / (n + 1)


def flagging_rank(n: int, alpha: float) -> int:
    """The largest integer k with k / (n + 1) <= alpha: an input above the k-th largest of `n` scores is flagged.

    Raises:
        CalibrationError: unless 0 < alpha < 1.
    """
    if not 0.0 < alpha < 1.0:
        raise CalibrationError(f"alpha is {alpha}; give a number above 0 and below 1")
    # Only a first guess: floor(alpha * (n + 1)) and the p-value's division round differently (0.29 * 100 -> 28, yet
    # 29 / 100 <= 0.29). The comparison that the p-value makes determines k.
    k = math.floor(alpha * (n + 1))
    while (k + 1) / (n + 1) <= alpha:
        k += 1
    while k / (n + 1) > alpha:
        k -= 1
    return k


@lru_cache(maxsize=256)
def false_flag_rate(n: int, alpha: float) -> FalseFlagRate:
    """The distribution of the false-flag rate at `alpha` over calibration sets of `n` inputs.

    Args:
        n: The number of calibration inputs, at least 1.
        alpha: The false-flag rate that is bounded on average, in 0..1.

    Raises:
        CalibrationError: unless 0 < alpha < 1 and n >= 1.
    """
    if n < 1:
        raise CalibrationError(f"the number of calibration inputs is {n}; give at least one")
    k = flagging_rank(n, alpha)
    if k == 0:
        return FalseFlagRate(n, alpha, 0.0, 0.0, 0.0)
    a, b = float(k), float(n + 1 - k)
    tail = (1 - COVERAGE) / 2
    return FalseFlagRate(
        n=n,
        alpha=alpha,
        lower=_beta_quantile(tail, a, b),
        # The upper tail by symmetry: 1 - tail would lose digits.
        upper=1 - _beta_quantile(tail, b, a),
        exceeds_alpha=beta_cdf(1 - alpha, b, a),
    )


def beta_cdf(x: float, a: float, b: float) -> float:
    """The regularised incomplete beta function I_x(a, b), the distribution function of Beta(a, b).

    The continued fraction DLMF 8.17.22, by the modified Lentz algorithm; it converges in O(sqrt(max(a, b))) terms.

    Args:
        x: The point, in 0..1.
        a: The first shape, above 0.
        b: The second shape, above 0.
    """
    if x <= 0.0:
        return 0.0
    if x >= 1.0:
        return 1.0
    # The fraction converges fast below the mean only.
    if x > (a + 1) / (a + b + 2):
        return 1 - beta_cdf(1 - x, b, a)
    log_factor = a * math.log(x) + b * math.log1p(-x) + math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    numerator_ratio = 1.0
    fraction = denominator_ratio = 1 / _away_from_zero(1 - (a + b) * x / (a + 1))
    for m in itertools.count(1):
        factor = 1.0
        for term in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            denominator_ratio = 1 / _away_from_zero(1 + term * denominator_ratio)
            numerator_ratio = _away_from_zero(1 + term / numerator_ratio)
            factor = numerator_ratio * denominator_ratio
            fraction *= factor
        if abs(factor - 1) <= _CONVERGED:
            break
    return min(1.0, math.exp(log_factor) / a * fraction)


def _beta_quantile(probability: float, a: float, b: float) -> float:
    """The x with I_x(a, b) = `probability`, by bisection down to neighbouring numbers."""
    low, high = 0.0, 1.0
    while low < (middle := (low + high) / 2) < high:
        if beta_cdf(middle, a, b) < probability:
            low = middle
        else:
            high = middle
    return high


def _away_from_zero(value: float) -> float:
    return value if abs(value) > _TINY else _TINY


def _rounded_up(value: float) -> float:
    """`value` with three significant digits, rounded up: a rounded-down alpha would be unusable."""
    scale = 10.0 ** (2 - math.floor(math.log10(value)))
    return math.ceil(value * scale * (1 - 1e-12)) / scale
