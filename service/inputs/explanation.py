"""Explanations: how much each part of an input contributes to its likelihood."""

import base64
from collections.abc import Sequence
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bundle import LikelihoodSpec

PARTS = "parts"
"""The name of the parts' bits among an engine's outputs."""

# Black, violet, red, yellow, white: brightness rises with every step, so that the map is readable in greyscale and for
# colour-blind people.
_COLOUR_STOPS = np.array([(0, 0, 4), (87, 16, 110), (188, 55, 84), (249, 142, 9), (252, 255, 164)], dtype=np.float64)
_PALETTE = np.stack([np.interp(np.linspace(0, 4, 256), np.arange(5), channel) for channel in _COLOUR_STOPS.T], axis=1)


def explain_pixels(bits: NDArray[Any], spec: LikelihoodSpec) -> dict[str, Any]:
    """The explanation of an image's likelihood: a heat map as a base64 PNG of the image's size.

    Args:
        bits: The bits of each pixel `[H, W]`, summed over its channels.
        spec: The likelihood in the manifest.

    Returns:
        A JSON object. Its `max_bits` is the value of the heat map's brightest colour; black is 0.
    """
    max_bits = float(bits.max())
    shades = np.clip(np.rint(255 * bits / max_bits) if max_bits > 0 else np.zeros_like(bits), 0, 255).astype(np.uint8)
    heat_map = Image.fromarray(shades, mode="P")
    heat_map.putpalette(np.rint(_PALETTE).astype(np.uint8).tobytes())
    file = BytesIO()
    heat_map.save(file, "PNG")
    return {
        "kind": "pixels",
        "per": spec.per,
        "heat_map": base64.b64encode(file.getvalue()).decode("ascii"),
        "max_bits": max_bits,
    }


def explain_tokens(tokens: Sequence[str], bits: NDArray[Any], spec: LikelihoodSpec) -> dict[str, Any]:
    """The explanation of a text's likelihood: the bits of each token.

    Args:
        tokens: The text's n tokens.
        bits: The bits of the tokens, then of the text's end if the likelihood counts it, then padding.
        spec: The likelihood in the manifest.

    Returns:
        A JSON object.
    """
    values = bits.tolist()
    parts = [{"token": token, "bits": value} for token, value in zip(tokens, values, strict=False)]
    end = values[len(tokens)] if spec.counts_end else None
    return {"kind": "tokens", "per": spec.per, "tokens": parts, "end_bits": end}
