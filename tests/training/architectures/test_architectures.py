"""Classifier architectures: output shapes, published sizes and initialisation."""

import pytest
import torch

from training.architectures import ARCHITECTURES, WhitenedConvNet, WideResNet


def parameters(network: torch.nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def test_wrn_40_2_has_the_published_number_of_parameters() -> None:
    # Zagoruyko & Komodakis 2016, table 4: 2.2 M; counted from the authors' definition for ten classes.
    assert parameters(WideResNet(num_classes=10, depth=40, widen_factor=2)) == 2_243_546


def test_wrn_16_4_has_the_published_number_of_parameters() -> None:
    assert parameters(WideResNet(num_classes=10, depth=16, widen_factor=4)) == pytest.approx(2.75e6, rel=0.01)


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [28, 32])
def test_logits_have_one_column_per_class(name: str, channels: int, size: int) -> None:
    options = {"depth": 10, "widen_factor": 1} if name == "wide_resnet" else {}
    network = ARCHITECTURES[name](num_classes=7, channels=channels, **options).eval()
    assert network(torch.randn(2, channels, size, size)).shape == (2, 7)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_in_evaluation_an_image_is_scored_the_same_in_any_batch(name: str) -> None:
    options = {"depth": 10, "widen_factor": 1} if name == "wide_resnet" else {}
    network = ARCHITECTURES[name](num_classes=4, channels=3, **options).eval()
    images = torch.randn(5, 3, 32, 32)
    torch.testing.assert_close(network(images)[2:3], network(images[2:3]), rtol=1e-4, atol=1e-5)


def test_the_whitening_layer_makes_patches_of_the_training_images_uncorrelated() -> None:
    torch.manual_seed(0)
    smooth = torch.nn.functional.avg_pool2d(torch.randn(64, 3, 34, 34), 3, stride=1)
    network = WhitenedConvNet(num_classes=2)
    network.initialise(smooth)
    patches = network.whitening(smooth)[:, :12].permute(0, 2, 3, 1).reshape(-1, 12)
    covariance = patches.T @ patches / len(patches)
    torch.testing.assert_close(covariance, torch.eye(12), atol=0.05, rtol=0)


def test_the_whitening_layer_is_not_trained() -> None:
    network = WhitenedConvNet(num_classes=2)
    network(torch.randn(2, 3, 32, 32)).sum().backward()
    assert network.whitening.weight.grad is None


@pytest.mark.parametrize("convolutions", [2, 3])
def test_a_whitened_network_has_the_given_number_of_convolutions_per_block(convolutions: int) -> None:
    widths = (8, 16, 24)
    network = WhitenedConvNet(num_classes=4, widths=widths, convolutions=convolutions)
    trained = [m for m in network.modules() if isinstance(m, torch.nn.Conv2d) and m.weight.requires_grad]
    assert len(trained) == 3 * convolutions
    assert network(torch.randn(2, 3, 32, 32)).shape == (2, 4)


def test_the_third_convolution_starts_as_the_identity() -> None:
    # With positive features and the initial normalisation a block then returns twice its pooled input.
    network = WhitenedConvNet(num_classes=4, widths=(24, 24, 24), convolutions=3).eval()
    block, features = network.blocks[0], torch.rand(2, 24, 8, 8)
    pooled = torch.nn.functional.max_pool2d(features, 2)
    torch.testing.assert_close(block(features), 2 * pooled, rtol=1e-4, atol=1e-4)


def test_another_number_of_convolutions_is_refused() -> None:
    with pytest.raises(ValueError, match="convolutions must be 2 or 3 a block, got 4"):
        WhitenedConvNet(num_classes=4, convolutions=4)
