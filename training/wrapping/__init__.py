"""Wrapping: the graph surgery that puts a foreign ONNX classifier between a bundle's input and its scores."""

from training.wrapping.batch import with_dynamic_batch
from training.wrapping.class_names import class_names, targets_among
from training.wrapping.evaluated import STAGE, Evaluated, evaluate_wrapped
from training.wrapping.image_plan import ImagePlan, Layout, Resize, plan_images
from training.wrapping.logits_check import require_logits
from training.wrapping.original import Original, load_original
from training.wrapping.plan import Plan
from training.wrapping.score_nodes import SCORE_NAMES, reference_scores
from training.wrapping.sessions import OriginalLogits
from training.wrapping.text_plan import TextWrapPlan, plan_texts
from training.wrapping.wrapped_graph import wrap_graph

__all__ = [
    "SCORE_NAMES",
    "STAGE",
    "Evaluated",
    "ImagePlan",
    "Layout",
    "Original",
    "OriginalLogits",
    "Plan",
    "Resize",
    "TextWrapPlan",
    "class_names",
    "evaluate_wrapped",
    "load_original",
    "plan_images",
    "plan_texts",
    "reference_scores",
    "require_logits",
    "targets_among",
    "with_dynamic_batch",
    "wrap_graph",
]
