"""The modalities that can be served: images and texts."""

from collections.abc import Mapping
from types import MappingProxyType

from bundle import Bundle
from service.inputs.images import Images
from service.inputs.modality import Modality
from service.inputs.texts import Texts

MODALITIES: Mapping[str, type[Images] | type[Texts]] = MappingProxyType({"image": Images, "text": Texts})
"""The class of each modality, by its name in the manifest."""


def modality_of(bundle: Bundle) -> Modality:
    """The modality of a bundle's input."""
    return MODALITIES[bundle.manifest.modality].of(bundle)
