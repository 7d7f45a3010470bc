"""Data sets: what is known by name, folders, parquet files and the Hub, through one door."""

from .as_image_set import as_image_set
from .check import DatasetReport, SplitReport, check_dataset
from .classification_data import ClassificationData, load_classification_data
from .dataset_spec import DataLicence, DatasetSpec
from .decoding import UnreadableImageError
from .device_augmentation import DeviceAugmentation
from .eval_images import EvalImages
from .feature_rows import FeatureRows
from .image_set import ImageSet
from .loading import load_images
from .randomness import derive_seed, generator, seeded, uniform
from .registry import DATASETS
from .retrieval_data import RetrievalData, load_retrieval_data
from .rows import RowFiles, row_blocks
from .small_images import SmallImages
from .train_images import Draw, TrainImages, cropped_images
from .transforms import Normalizer, padded_crop_transform, training_transform
from .unreadable_images import BadImage, find_bad_images
from .vector_files import load_vectors
from .vector_set import VectorSet

__all__ = [
    "DATASETS",
    "BadImage",
    "ClassificationData",
    "DataLicence",
    "DatasetReport",
    "DatasetSpec",
    "DeviceAugmentation",
    "Draw",
    "EvalImages",
    "FeatureRows",
    "ImageSet",
    "Normalizer",
    "RetrievalData",
    "RowFiles",
    "SmallImages",
    "SplitReport",
    "TrainImages",
    "UnreadableImageError",
    "VectorSet",
    "as_image_set",
    "check_dataset",
    "cropped_images",
    "derive_seed",
    "find_bad_images",
    "generator",
    "load_classification_data",
    "load_images",
    "load_retrieval_data",
    "load_vectors",
    "padded_crop_transform",
    "row_blocks",
    "seeded",
    "training_transform",
    "uniform",
]
