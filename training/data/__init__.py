"""Data: loads sources as arrays of images or token ids, and pairs in-distribution and outlier batches.

May import `training.run`, `training.recipe` and the errors.
"""

from training.data.assembly import (
    InDistributionData,
    RemovedDuplicates,
    Sample,
    load_in_distribution,
    load_set,
    without_overlap,
)
from training.data.augmentation import Augmentation
from training.data.duplicates import SeparatedRows, separate_duplicates
from training.data.evaluation_sets import EvaluationSet, load_evaluation_sets
from training.data.examples import Examples, InputArray, StoredArray
from training.data.image_loading import load_images
from training.data.overlap import Overlap, find_overlap, find_text_overlap
from training.data.pairing import Batch, paired_batches
from training.data.problems import BrokenInputs, Problem, all_problems, announce_left_out
from training.data.reader import ImageReader, Reader, TextReader, open_reader
from training.data.segments import text_segments
from training.data.source_guess import class_folders, columns_of, guess_source
from training.data.sources import DataLocations, Progress
from training.data.splits import InDistributionRows, require_test_size, split_in_distribution
from training.data.synthetic import NOISE, SYNTHETIC, generate
from training.data.text_loading import load_texts, read_texts
from training.data.token_ids import NO_TOKEN

__all__ = [
    "NOISE",
    "NO_TOKEN",
    "SYNTHETIC",
    "Augmentation",
    "Batch",
    "BrokenInputs",
    "DataLocations",
    "EvaluationSet",
    "Examples",
    "ImageReader",
    "InDistributionData",
    "InDistributionRows",
    "InputArray",
    "Overlap",
    "Problem",
    "Progress",
    "Reader",
    "RemovedDuplicates",
    "Sample",
    "SeparatedRows",
    "StoredArray",
    "TextReader",
    "all_problems",
    "announce_left_out",
    "class_folders",
    "columns_of",
    "find_overlap",
    "find_text_overlap",
    "generate",
    "guess_source",
    "load_evaluation_sets",
    "load_images",
    "load_in_distribution",
    "load_set",
    "load_texts",
    "open_reader",
    "paired_batches",
    "read_texts",
    "require_test_size",
    "separate_duplicates",
    "split_in_distribution",
    "text_segments",
    "without_overlap",
]
