"""Pretrained backbones: models whose features a classifier is trained on, frozen in ONNX or fine-tuned in torch."""

from training.backbones.backbone import Backbone, load_backbone, open_backbone, save_backbone
from training.backbones.feature_cache import with_features
from training.backbones.fine_tuned import FineTunedNetwork
from training.backbones.graph import join_head
from training.backbones.transformers_model import ImageFeatures, TextFeatures, copy_transformers, load_transformers

__all__ = [
    "Backbone",
    "FineTunedNetwork",
    "ImageFeatures",
    "TextFeatures",
    "copy_transformers",
    "join_head",
    "load_backbone",
    "load_transformers",
    "open_backbone",
    "save_backbone",
    "with_features",
]
