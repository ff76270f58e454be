"""Augmentation: each image is moved and mirrored on its own, and nothing else happens to it."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from training.data import Augmentation


@settings(max_examples=30)
@given(n=st.integers(1, 5), size=st.integers(2, 9), pad=st.integers(0, 4), seed=st.integers(0, 999))
def test_each_result_is_a_crop_of_its_own_padded_image_or_of_its_mirror_image(
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


def test_cutout_greys_a_square_that_may_reach_over_the_edge_and_nothing_else() -> None:
    torch.manual_seed(0)
    images = torch.zeros(500, 12, 10, 3, dtype=torch.uint8)
    cut = Augmentation(0, flip=False, cutout=4)(images)
    grey = (cut == 127).all(dim=3)
    assert torch.equal(cut, torch.where(grey[..., None], 127, 0).to(torch.uint8).expand_as(cut))
    areas = grey.flatten(1).sum(dim=1)
    assert areas.max() == 16
    assert areas.min() >= 4
    # Every pixel is cut now and then.
    assert grey.any(dim=0).all()
