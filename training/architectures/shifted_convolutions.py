"""Causal convolutions by padding: no output depends on a later pixel (PixelCNN++, section 2.3 and the authors' code).

Down convolutions cover their own row and the one above, from one column left to one column right. Down-right
convolutions cover their own row and the one above, their own column and the one to the left. A stack of down
convolutions on an input shifted down by one row depends on every pixel in the rows above; a stack of down-right
convolutions also depends on those to the left.

The padding above and to the left is a separate layer, because torch's convolutions pad opposite sides equally. The ONNX
exporter merges the two.
"""

from functools import partial

from torch import nn

from training.architectures.weight_normalisation import WeightNormalised


def down(width_in: int, width_out: int, *, stride: int = 1, initial_scale: float = 1.0) -> nn.Module:
    """A 2x3 convolution of the down stream; with `stride` 2 it halves the image."""
    convolution = partial(nn.Conv2d, width_in, width_out, (2, 3), stride=stride, padding=(0, 1))
    return nn.Sequential(nn.ZeroPad2d((0, 0, 1, 0)), WeightNormalised(convolution, initial_scale))


def down_right(width_in: int, width_out: int, *, stride: int = 1, initial_scale: float = 1.0) -> nn.Module:
    """A 2x2 convolution of the down-right stream; with `stride` 2 it halves the image."""
    convolution = partial(nn.Conv2d, width_in, width_out, 2, stride=stride)
    return nn.Sequential(nn.ZeroPad2d((1, 0, 1, 0)), WeightNormalised(convolution, initial_scale))


def down_doubling(width: int) -> nn.Module:
    """A transposed 2x3 convolution that doubles an image of the down stream."""
    padding = (0, 1)
    return WeightNormalised(
        partial(nn.ConvTranspose2d, width, width, (2, 3), stride=2, padding=padding, output_padding=padding)
    )


def down_right_doubling(width: int) -> nn.Module:
    """A transposed 2x2 convolution that doubles an image of the down-right stream."""
    return WeightNormalised(partial(nn.ConvTranspose2d, width, width, 2, stride=2))


def row_above(width_in: int, width_out: int, *, rows: int) -> nn.Module:
    """The first convolution of a stream: `rows` rows above and three columns, without the pixel's own row."""
    convolution = partial(nn.Conv2d, width_in, width_out, (rows, 3), padding=(0, 1))
    return nn.Sequential(nn.ZeroPad2d((0, 0, rows, -1)), WeightNormalised(convolution))


def column_left(width_in: int, width_out: int) -> nn.Module:
    """The first convolution of the down-right stream: two rows of the column to the left, without the pixel's own."""
    convolution = partial(nn.Conv2d, width_in, width_out, (2, 1))
    return nn.Sequential(nn.ZeroPad2d((1, -1, 1, 0)), WeightNormalised(convolution))
