"""Images and texts: what sets their models apart, one file for each, behind one interface."""

from collections.abc import Mapping
from types import MappingProxyType

from bundle import Bundle
from service.modalities.images import Images
from service.modalities.modality import Array, Limits, Modality, Prepared, Run
from service.modalities.texts import Texts

MODALITIES: Mapping[str, type[Images] | type[Texts]] = MappingProxyType({"image": Images, "text": Texts})
"""Every modality that can be served, by its name in the manifest."""


def modality_of(bundle: Bundle) -> Modality:
    """What `bundle` takes."""
    return MODALITIES[bundle.manifest.modality].of(bundle)


__all__ = ["MODALITIES", "Array", "Images", "Limits", "Modality", "Prepared", "Run", "Texts", "modality_of"]
