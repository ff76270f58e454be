"""The sum of the standardised anomalies of several scores of the same model.

    sum_j (a_j - m_j) / s_j

m_j and s_j are the mean and the standard deviation of anomaly j over in-distribution examples that are not among the
calibration examples. The sum is therefore a fixed function of an input, as every other score is, and its conformal
p-values are valid: see docs/architecture.md.
"""

from bundle.scores.score import Score, Tensor


def standardised_sum(anomalies: Tensor, means: Tensor, deviations: Tensor) -> Tensor:
    """The sum `[N]` of standardised anomalies `[N, S]`.

    Args:
        anomalies: The anomalies of S scores.
        means: The mean `[S]` of each.
        deviations: The standard deviation `[S]` of each.
    """
    return ((anomalies - means) / deviations).sum(dim=-1)


COMBINED = Score(
    name="combined",
    title="Sum of standardised anomalies",
    unit="standard deviations",
    source="sum of standard scores",
    offset=0.0,
    sign=+1,
    formulas={("combined_anomalies", "anomaly_means", "anomaly_deviations"): standardised_sum},
)
