"""The classifier of features: standardised inputs, and norms that cannot carry its predictions away."""

import pytest
import torch

from training.architectures.linear_probe import LinearProbe


def probe_of(features: torch.Tensor, *, split_norm: bool) -> LinearProbe:
    torch.manual_seed(0)
    probe = LinearProbe(3, features.shape[1], hidden=8, split_norm=split_norm)
    probe.initialise(features)
    return probe


def test_logits_of_features_of_any_norm_stay_bounded_if_the_norm_is_split_off() -> None:
    torch.manual_seed(1)
    features = torch.randn(200, 6)
    growth = []
    for split_norm in (False, True):
        probe = probe_of(features, split_norm=split_norm)
        near, far = (probe(factor * features).norm(dim=1).max().item() for factor in (100.0, 10_000.0))
        growth.append(far / near)
    assert growth[0] > 50
    assert growth[1] < 1.5


def test_a_split_norm_still_tells_features_of_different_norm_apart() -> None:
    torch.manual_seed(2)
    features = torch.nn.functional.normalize(torch.randn(300, 6)) * torch.rand(300, 1).add(1)
    probe = probe_of(features, split_norm=True)
    assert not torch.allclose(probe(features), probe(1.5 * features), atol=1e-2)


def test_zero_features_have_finite_logits() -> None:
    probe = probe_of(torch.randn(50, 6), split_norm=True)
    assert torch.isfinite(probe(torch.zeros(1, 6))).all()


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_a_feature_that_is_constant_up_to_rounding_in_training_does_not_dominate_the_logits(scale: float) -> None:
    torch.manual_seed(3)
    features = scale * torch.randn(200, 6).add(5)
    features[:, 2] = scale * (7 + 1e-5 * torch.randn(200))
    probe = probe_of(features, split_norm=False)
    changed = features[:20].clone()
    changed[:, 2] += scale
    assert (probe(changed) - probe(features[:20])).abs().max() < 3 * probe(features).abs().max()
