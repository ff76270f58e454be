"""Wrapping: the graph surgery that puts a foreign ONNX classifier between a bundle's input and its scores."""

from training.wrapping.batch import with_dynamic_batch
from training.wrapping.class_names import class_names, targets_among
from training.wrapping.evaluated import STAGE, Evaluated, evaluate_wrapped
from training.wrapping.image_adapter import ImageAdapter, Layout, Resize, image_adapter
from training.wrapping.input_adapter import InputAdapter
from training.wrapping.logits_check import require_logits
from training.wrapping.original import Original, load_original
from training.wrapping.score_nodes import SCORE_NAMES, reference_scores
from training.wrapping.sessions import OriginalLogits
from training.wrapping.text_adapter import TextAdapter, text_adapter
from training.wrapping.wrapped_graph import wrap_graph

__all__ = [
    "SCORE_NAMES",
    "STAGE",
    "Evaluated",
    "ImageAdapter",
    "InputAdapter",
    "Layout",
    "Original",
    "OriginalLogits",
    "Resize",
    "TextAdapter",
    "class_names",
    "evaluate_wrapped",
    "image_adapter",
    "load_original",
    "reference_scores",
    "require_logits",
    "targets_among",
    "text_adapter",
    "with_dynamic_batch",
    "wrap_graph",
]
