"""Explanations: which parts of an input its likelihood is made of, so that a person sees what is surprising."""

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

# Black, violet, red, yellow, white: brighter in every step, so that it reads in grey and by the colour-blind too.
_STOPS = np.array([(0, 0, 4), (87, 16, 110), (188, 55, 84), (249, 142, 9), (252, 255, 164)], dtype=np.float64)
_PALETTE = np.stack([np.interp(np.linspace(0, 4, 256), np.arange(5), channel) for channel in _STOPS.T], axis=1)


def explain_pixels(bits: NDArray[Any], spec: LikelihoodSpec) -> dict[str, Any]:
    """The bits of each pixel `[H, W]`, all its channels together, as a heat map: a PNG of that size, in base64.

    `max_bits` is what its brightest colour stands for; black is 0.
    """
    highest = float(bits.max())
    shades = np.clip(np.rint(255 * bits / highest) if highest > 0 else np.zeros_like(bits), 0, 255).astype(np.uint8)
    picture = Image.fromarray(shades, mode="P")
    picture.putpalette(np.rint(_PALETTE).astype(np.uint8).tobytes())
    file = BytesIO()
    picture.save(file, "PNG")
    return {
        "kind": "pixels",
        "per": spec.per,
        "heat_map": base64.b64encode(file.getvalue()).decode("ascii"),
        "max_bits": highest,
    }


def explain_tokens(tokens: Sequence[str], bits: NDArray[Any], spec: LikelihoodSpec) -> dict[str, Any]:
    """The bits of each of n tokens, the first n of `bits`, and of the text's end where that is counted."""
    found = bits.tolist()
    parts = [{"token": token, "bits": value} for token, value in zip(tokens, found, strict=False)]
    end = found[len(tokens)] if spec.counts_end else None
    return {"kind": "tokens", "per": spec.per, "tokens": parts, "end_bits": end}
