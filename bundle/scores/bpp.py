"""Bits per pixel: the sum of an image's bits, divided by its number of pixels or of channel values."""

from bundle.scores.score import Score, Tensor


def bits_per_pixel(pixel_bits: Tensor, count: Tensor) -> Tensor:
    """The bits per unit `[N]` of pixels' bits `[N, H, W]` and the number of units."""
    return pixel_bits.sum(dim=(1, 2)) / count


BPP = Score(
    name="bpp",
    title="Bits per pixel",
    unit="bits",
    source="Salimans et al. 2017, PixelCNN++; Hendrycks, Mazeika & Dietterich 2019, Deep Anomaly Detection with "
    "Outlier Exposure",
    offset=0.0,
    sign=+1,
    formulas={("pixel_bits", "count"): bits_per_pixel},
)
