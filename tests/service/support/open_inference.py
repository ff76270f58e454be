"""Parsing request bodies of the Open Inference Protocol without a running service."""

from bundle import ImageInput
from service.inputs.images import Images
from service.inputs.modality import Modality
from service.protocols.open_inference.request import Inference, parse_inference
from service.scoring.options import OptionLimits

SHAPE = (8, 8, 3)
IMAGES = Images(ImageInput(height=8, width=8, channels=3, mean=(0.5,) * 3, std=(0.5,) * 3))
OPTION_LIMITS = OptionLimits(("msp", "energy"), "msp", 1000)


def parse(body: bytes, header_length: int | None = None, modality: Modality = IMAGES) -> Inference:
    """The inference that `body` asks of a classifier for at most four inputs."""
    return parse_inference(body, header_length, modality, OPTION_LIMITS, classifies=True, max_inputs=4)
