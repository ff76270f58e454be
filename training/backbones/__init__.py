"""Pretrained backbones: frozen feature extractors in ONNX, whose features a classifier is trained on."""

from training.backbones.backbone import Backbone, load_backbone, open_backbone, save_backbone
from training.backbones.feature_cache import with_features
from training.backbones.graph import join_head

__all__ = ["Backbone", "join_head", "load_backbone", "open_backbone", "save_backbone", "with_features"]
