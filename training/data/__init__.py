"""Data: sources become uint8 image arrays; arrays become paired in-distribution and outlier batches."""

from training.data.assembly import InDistributionData, load_in_distribution, load_outliers, without_overlap
from training.data.augmentation import Augmentation
from training.data.images import ImageArray, Images, StoredImages
from training.data.loading import DataLocations, Progress, load_images
from training.data.overlap import Overlap, find_overlap
from training.data.pairing import Batch, paired_batches
from training.data.splits import hold_out

__all__ = [
    "Augmentation",
    "Batch",
    "DataLocations",
    "ImageArray",
    "Images",
    "InDistributionData",
    "Overlap",
    "Progress",
    "StoredImages",
    "find_overlap",
    "hold_out",
    "load_images",
    "load_in_distribution",
    "load_outliers",
    "paired_batches",
    "without_overlap",
]
