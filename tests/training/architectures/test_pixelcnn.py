"""PixelCNN++ is a distribution over images: each pixel depends on all earlier pixels and on no others."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim
from torch.utils.flop_counter import FlopCounterMode

from tests.training.support.datasets_on_disk import stripes
from training.architectures import DENSITY_ARCHITECTURES, PixelCNN
from training.architectures.discretized_logistic_mixture import parameters_needed
from training.objectives import maximum_likelihood_loss


def tiny(seed: int = 0, **options: float) -> PixelCNN:
    torch.manual_seed(seed)
    network = DENSITY_ARCHITECTURES["pixelcnn"](
        **{"channels": 1, "filters": 4, "resnets": 1, "levels": 3, "mixtures": 2, **options}
    )
    assert isinstance(network, PixelCNN)
    return network


def noise(n: int, channels: int, height: int, width: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, channels, height, width), generator=generator).float()


def influence(network: PixelCNN, channels: int, size: int) -> Tensor:
    """Whether a pixel's distribution (rows) depends on a pixel's channel: bool `[size^2, channels, size^2]`."""
    n = size * size
    pixels = noise(1, channels, size, size).double().expand(n, -1, -1, -1).clone().requires_grad_()
    parameters = network.double().eval().mixture(pixels).flatten(2)
    # Row k is for pixel k of image k; the random direction makes it unlikely that dependences cancel.
    of_pixels = parameters[torch.arange(n), :, torch.arange(n)]
    (of_pixels * torch.randn_like(of_pixels)).sum().backward()
    assert pixels.grad is not None
    return pixels.grad.flatten(2) != 0


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("levels", "size"), [(1, 4), (2, 6), (3, 8)])
def test_a_pixels_distribution_depends_on_no_channel_of_itself_or_of_a_later_pixel(
    channels: int, levels: int, size: int
) -> None:
    seen = influence(tiny(channels=channels, levels=levels), channels, size)
    for channel in range(channels):
        assert not torch.triu(seen[:, channel]).any()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("levels", "size"), [(2, 6), (3, 8)])
def test_a_pixels_distribution_depends_on_every_channel_of_every_earlier_pixel(
    channels: int, levels: int, size: int
) -> None:
    # Two blocks per level, because one does not reach across eight pixels.
    seen = influence(tiny(channels=channels, levels=levels, resnets=2), channels, size)
    earlier = torch.ones(size**2, size**2, dtype=torch.bool).tril(-1)
    for channel in range(channels):
        assert torch.equal(seen[:, channel], earlier)


def test_the_65536_images_of_two_pixels_have_probabilities_that_sum_to_one() -> None:
    network = tiny(levels=1).eval()
    values = torch.arange(256.0)
    images = torch.cartesian_prod(values, values).view(-1, 1, 1, 2)
    with torch.inference_mode():
        nats = network(images).sum(dim=(1, 2))
        second = network.mixture(images)[..., 1]
    assert float(torch.exp(-nats.double()).sum()) == pytest.approx(1, abs=1e-4)
    # The second pixel depends on the first.
    assert float(second.std(dim=0).max()) > 0.01


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("height", "width"), [(4, 4), (8, 12), (28, 4)])
def test_every_pixel_has_finite_nats(channels: int, height: int, width: int) -> None:
    nats = tiny(channels=channels).eval()(noise(2, channels, height, width))
    assert nats.shape == (2, height, width)
    assert torch.isfinite(nats).all()


def test_in_evaluation_an_image_is_scored_the_same_in_any_batch() -> None:
    network, images = tiny(channels=3).eval(), noise(5, 3, 8, 8)
    torch.testing.assert_close(network(images)[2:3], network(images[2:3]), rtol=1e-4, atol=1e-5)


def test_an_image_that_cannot_be_halved_is_refused_with_the_valid_sizes() -> None:
    with pytest.raises(ValueError, match=r"30x32 .* multiples of 4"):
        tiny()(noise(1, 1, 30, 32))


@pytest.mark.parametrize("option", ["channels", "filters", "resnets", "levels", "mixtures"])
def test_options_below_one_are_refused(option: str) -> None:
    with pytest.raises(ValueError, match=f"{option} must be 1 or more, got 0"):
        tiny(**{option: 0})


def test_initialisation_standardises_the_parameters_over_its_images() -> None:
    network, images = tiny(channels=3, dropout=0.0), noise(16, 3, 8, 8)
    network.initialise(images)
    with torch.no_grad():
        std, mean = torch.std_mean(network.mixture(images), dim=(0, 2, 3))
    torch.testing.assert_close(mean, torch.zeros(parameters_needed(3, 2)), atol=1e-3, rtol=0)
    torch.testing.assert_close(std, torch.ones(parameters_needed(3, 2)), atol=1e-3, rtol=0)


def test_initialisation_with_constant_images_leaves_every_scale_finite() -> None:
    network = tiny()
    network.initialise(torch.zeros(4, 1, 8, 8))
    assert torch.isfinite(network.eval()(noise(2, 1, 8, 8))).all()


def test_the_images_of_the_initialisation_are_spread_over_all_that_are_given() -> None:
    dark, bright = noise(100, 1, 8, 8) / 8, noise(100, 1, 8, 8)
    scales = []
    for images in (torch.cat((dark, bright)), torch.cat((bright, dark))):
        torch.manual_seed(0)
        network = tiny(dropout=0.0)
        network.initialise(images)
        scales.append(network.first.state_dict())
    for name, value in scales[0].items():
        torch.testing.assert_close(scales[1][name], value, rtol=0.1, atol=0.02, msg=name)


def test_dropout_applies_in_training_only() -> None:
    network, images = tiny(dropout=0.5), noise(2, 1, 8, 8)
    assert not torch.equal(network(images), network(images))
    network.eval()
    assert torch.equal(network(images), network(images))


def test_a_folded_copy_has_plain_convolutions_and_the_same_nats() -> None:
    network, images = tiny(channels=3).eval(), noise(2, 3, 8, 8)
    network.initialise(images)
    folded = network.folded()
    assert not any("parametrizations" in name for name in folded.state_dict())
    torch.testing.assert_close(folded(images), network(images), rtol=1e-5, atol=1e-5)


def test_folding_does_not_change_the_network_itself() -> None:
    network, images = tiny(dropout=0.0), noise(2, 1, 8, 8)
    before, names = network(images).detach(), set(network.state_dict())
    network.folded()
    network(images).sum().backward()
    assert torch.equal(network(images), before)
    assert set(network.state_dict()) == names
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_a_few_steps_of_training_make_images_with_structure_more_likely() -> None:
    images = torch.from_numpy(stripes(16, seed=3)[0][:, :8, :8]).permute(0, 3, 1, 2).float()
    network = tiny(channels=images.shape[1], filters=8, levels=2, dropout=0.0)
    network.initialise(images)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    losses = []
    for _ in range(25):
        loss = maximum_likelihood_loss(network(images).sum(dim=(1, 2)), images[0].numel())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    # In the end the loss is below that of the uniform distribution, 8 bits.
    assert losses[-1] < losses[0] - 0.5
    assert losses[-1] < np.log(256)


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize(("channels", "levels"), [(1, 1), (3, 2)])
def test_the_onnx_graph_gives_the_networks_nats_at_every_batch_size(channels: int, levels: int, tmp_path: Path) -> None:
    network = tiny(channels=channels, levels=levels)
    network.initialise(noise(8, channels, 8, 8))
    export(network.eval().folded(), noise(2, channels, 8, 8), tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    for n in (1, 3, 8):
        images = noise(n, channels, 8, 8, seed=n)
        images[0, :, 0, :2] = torch.tensor([0.0, 255.0])
        (nats,) = session.run(["nats"], {"pixels": images.numpy()})
        np.testing.assert_allclose(nats, network(images).detach().numpy(), rtol=1e-3)
    operators = [node.op_type for node in onnx.load(tmp_path / "model.onnx").graph.node]
    # Padding is left in front of the stem alone: a channel of ones, and three shifted convolutions.
    assert operators.count("Pad") == 4


def export(network: nn.Module, example: Tensor, path: Path) -> None:
    torch.onnx.export(
        network,
        (example,),
        path,
        input_names=["pixels"],
        output_names=["nats"],
        dynamic_shapes=({0: Dim("N")},),
        opset_version=18,
        dynamo=True,
        external_data=False,
        verbose=False,
    )


def test_the_papers_network_takes_929_filters_squared_multiplications_a_pixel() -> None:
    def multiplications(filters: int) -> float:
        network = PixelCNN(filters=filters)
        with FlopCounterMode(display=False) as counter:
            network(noise(1, 3, 4, 4))
        return counter.get_total_flops() / 2 / 16

    # The count is a filters^2 + b filters with a = 929.
    assert (multiplications(8) / 8 - multiplications(4) / 4) / 4 == pytest.approx(929, abs=0.5)
