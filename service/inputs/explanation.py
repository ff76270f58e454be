"""Explanations: how much each part of an input contributes to its likelihood or to the logit of its class."""

import base64
from collections.abc import Sequence
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bundle import LikelihoodSpec, Reference

PARTS = "parts"
"""The name of the parts' bits, or of the positions' evidence, among an engine's outputs."""

NEIGHBOURS, NEIGHBOUR_DISTANCES = "neighbours", "neighbour_distances"
"""The names of the nearest training examples' numbers and distances among an engine's outputs."""

EXPLANATIONS = (PARTS, NEIGHBOURS, NEIGHBOUR_DISTANCES)
"""The outputs of an engine that a request gets only if it asks for an explanation."""

# Black, violet, red, yellow, white: brightness rises with every step, so that the map is readable in greyscale and for
# colour-blind people.
_COLOUR_STOPS = np.array([(0, 0, 4), (87, 16, 110), (188, 55, 84), (249, 142, 9), (252, 255, 164)], dtype=np.float64)


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
    return {
        "kind": "pixels",
        "per": spec.per,
        "heat_map": _png(shades, _palette(_COLOUR_STOPS)),
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


# Blue, white, red: the sign is readable by colour-blind people, and the distance from zero by the saturation.
_SIGNED_STOPS = np.array([(5, 48, 97), (67, 147, 195), (247, 247, 247), (214, 96, 77), (103, 0, 31)], dtype=np.float64)


def explain_evidence(values: NDArray[Any], bias: float) -> dict[str, Any]:
    """The explanation of the predicted class's logit: the evidence of each position, also as a base64 PNG.

    Args:
        values: The evidence `[H, W]`, on the grid of the network's last feature maps.
        bias: The part of the class's logit that no position has.

    Returns:
        A JSON object. `values` and `bias` add up to `logit`. In the heat map, white is 0, red speaks for the class and
        blue against it; `max_evidence` is the distance from 0 of the strongest colours.
    """
    max_evidence = float(np.abs(values).max())
    shades = np.rint(127.5 + 127.5 * (values / max_evidence if max_evidence > 0 else np.zeros_like(values)))
    return {
        "kind": "evidence",
        "values": values.tolist(),
        "bias": bias,
        "logit": float(values.sum(dtype=np.float64)) + bias,
        "heat_map": _png(shades.astype(np.uint8), _palette(_SIGNED_STOPS)),
        "max_evidence": max_evidence,
    }


def explain_neighbours(
    numbers: NDArray[Any], distances: NDArray[Any], references: Sequence[Reference]
) -> list[dict[str, Any]]:
    """The nearest training examples of an input as JSON objects, the nearest first.

    Args:
        numbers: The numbers `[K]` of the examples.
        distances: Their squared distances `[K]`.
        references: The examples that the graph numbers.

    Raises:
        IndexError: A number is that of no example.
    """
    if numbers.min(initial=0) < 0:
        raise IndexError(f"there is no training example {numbers.min()}")
    nearest = [references[number] for number in numbers.tolist()]
    return [
        {"label": reference.label, "source": reference.source, "distance": distance}
        for reference, distance in zip(nearest, distances.tolist(), strict=True)
    ]


def _palette(stops: NDArray[np.float64]) -> NDArray[np.float64]:
    """256 colours `[256, 3]` from five equally spaced ones."""
    return np.stack([np.interp(np.linspace(0, 4, 256), np.arange(5), channel) for channel in stops.T], axis=1)


def _png(shades: NDArray[np.uint8], palette: NDArray[np.float64]) -> str:
    """A PNG of indices `[H, W]` into a palette, in base64."""
    image = Image.fromarray(shades, mode="P")
    image.putpalette(np.rint(palette).astype(np.uint8).tobytes())
    file = BytesIO()
    image.save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode("ascii")
