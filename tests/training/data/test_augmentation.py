"""Augmentation: each image is changed independently, and only in the ways that are configured."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from training.data import Augmentation


@settings(max_examples=30)
@given(n=st.integers(1, 5), size=st.integers(2, 9), pad=st.integers(0, 4), seed=st.integers(0, 999))
def test_each_result_is_a_crop_of_the_padded_image_or_of_its_mirror_image(
    n: int, size: int, pad: int, seed: int
) -> None:
    torch.manual_seed(seed)
    images = torch.randint(1, 256, (n, size, size, 3), dtype=torch.uint8)
    for image, result in zip(images, Augmentation(pad)(images), strict=True):
        padded = torch.zeros(size + 2 * pad, size + 2 * pad, 3, dtype=torch.uint8)
        padded[pad : pad + size, pad : pad + size] = image
        crops = [padded[r : r + size, c : c + size] for r in range(2 * pad + 1) for c in range(2 * pad + 1)]
        assert any(torch.equal(result, crop) or torch.equal(result, crop.flip(1)) for crop in crops)


def test_without_padding_and_mirroring_nothing_changes() -> None:
    images = torch.randint(0, 256, (4, 6, 5, 3), dtype=torch.uint8)
    assert torch.equal(Augmentation(0, flip=False)(images), images)


def test_half_of_the_images_are_mirrored_and_offsets_are_uniform() -> None:
    torch.manual_seed(0)
    images = torch.zeros(4000, 3, 3, 1, dtype=torch.uint8)
    images[:, 1, 0] = 1
    moved = Augmentation(1)(images)
    assert 0.45 < Augmentation(0)(images)[:, 1, 2, 0].float().mean() < 0.55
    # The mark stays visible in 2 of 3 columns and all rows, for either orientation.
    assert 0.60 < moved.flatten(1).any(dim=1).float().mean() < 0.73


def test_cutout_greys_one_square_that_may_reach_over_the_edge() -> None:
    torch.manual_seed(0)
    images = torch.zeros(500, 12, 10, 3, dtype=torch.uint8)
    cut = Augmentation(0, flip=False, cutout=4)(images)
    grey = (cut == 127).all(dim=3)
    assert torch.equal(cut, torch.where(grey[..., None], 127, 0).to(torch.uint8).expand_as(cut))
    areas = grey.flatten(1).sum(dim=1)
    assert areas.max() == 16
    assert areas.min() >= 4
    # Every pixel is cut in some image.
    assert grey.any(dim=0).all()


def slopes(size: int) -> torch.Tensor:
    """An image `[size, size, 3]` whose red increases by 10 per column and whose green by 10 per row."""
    steps = 10 * torch.arange(size, dtype=torch.uint8)
    blue = torch.zeros(size, size, dtype=torch.uint8)
    return torch.stack((steps.expand(size, size), steps[:, None].expand(size, size), blue), dim=2)


@settings(max_examples=30)
@given(zoom=st.floats(0.3, 0.9), size=st.integers(8, 24), seed=st.integers(0, 999))
def test_zoom_enlarges_a_square_within_the_image_equally_in_both_directions(zoom: float, size: int, seed: int) -> None:
    torch.manual_seed(seed)
    images = slopes(size).expand(20, -1, -1, -1)
    near = Augmentation(0, flip=False, zoom=zoom)(images).float()
    # Away from the edges, where interpolation has neighbours on both sides.
    across = near[:, size // 2, 2:-2, 0].diff(dim=1).mean(dim=1)
    down = near[:, 2:-2, size // 2, 1].diff(dim=1).mean(dim=1)
    assert (across - down).abs().max() < 0.5
    assert across.min() > 10 * zoom - 0.5
    assert across.max() < 10.5
    assert near[..., :2].max() <= 10 * (size - 1)
    assert across.std() > 0


def test_jitter_changes_brightness_and_contrast_of_each_image_within_their_bounds() -> None:
    torch.manual_seed(0)
    images = torch.tensor([[117, 137]], dtype=torch.uint8)[None, :, :, None].expand(2000, 1, 2, 3)
    changed = Augmentation(0, flip=False, jitter=0.5)(images).float()
    contrast = (changed[:, 0, 1] - changed[:, 0, 0]).amax(dim=1) / 20
    brightness = changed.mean(dim=(1, 2, 3)) - 127
    assert 0.6 <= contrast.min() < 0.7
    assert 1.5 < contrast.max() <= 1.7
    assert -64.5 <= brightness.min() < -55
    assert 55 < brightness.max() <= 64.5


def test_a_share_of_the_images_is_distorted_and_the_others_are_unchanged() -> None:
    torch.manual_seed(0)
    images = torch.randint(0, 256, (2000, 8, 8, 3), dtype=torch.uint8)
    distorted = Augmentation(0, flip=False, zoom=0.5, jitter=0.5, share=0.25)(images)
    assert 0.21 < (distorted != images).flatten(1).any(dim=1).float().mean() < 0.29
    single = Augmentation(0, flip=False, zoom=0.5, share=1e-9)(images[:1])
    assert torch.equal(single, images[:1])
