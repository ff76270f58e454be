"""Alpha: the false-flag rate that so many calibration inputs can give."""

import math

DEFAULT_ALPHA = 0.01


def attainable_alpha(n: int) -> float:
    """`DEFAULT_ALPHA`, or where `n` calibration scores are too few to flag anything at it, 1 / (n + 1) rounded up."""
    smallest = math.ceil(1000 / (n + 1)) / 1000
    return max(DEFAULT_ALPHA, smallest)
