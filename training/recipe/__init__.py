"""Recipes: the schema of the YAML file, its reader and writer, and the construction of its components.

May import the errors and `bundle` only.
"""

from training.recipe.backbone import PRETRAINED, BackboneConfig
from training.recipe.components import Component, build_component
from training.recipe.data_config import InDistribution, Outliers, Source, Synthetic, TestSet
from training.recipe.file import apply_override, load_recipe, parse_recipe
from training.recipe.recipe import AUTO, EvaluationConfig, Export, LikelihoodConfig, Precision, Recipe, Task, Trainer
from training.recipe.stage import AugmentationConfig, MuonConfig, Stage
from training.recipe.text_config import TextConfig
from training.recipe.yaml_file import dump_yaml

__all__ = [
    "AUTO",
    "PRETRAINED",
    "AugmentationConfig",
    "BackboneConfig",
    "Component",
    "EvaluationConfig",
    "Export",
    "InDistribution",
    "LikelihoodConfig",
    "MuonConfig",
    "Outliers",
    "Precision",
    "Recipe",
    "Source",
    "Stage",
    "Synthetic",
    "Task",
    "TestSet",
    "TextConfig",
    "Trainer",
    "apply_override",
    "build_component",
    "dump_yaml",
    "load_recipe",
    "parse_recipe",
]
