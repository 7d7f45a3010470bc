"""Data sets: what is known by name, folders, parquet files and the Hub, through one door."""

from .bad_images import BadImage, find_bad_images
from .check import DatasetReport, SplitReport, check_dataset
from .classification import ClassificationData, load_classification_data
from .decoding import UnreadableImageError
from .device_augmentation import DeviceAugmentation
from .eval_images import EvalImages
from .image_set import ImageSet
from .loading import RetrievalData, load_images, load_retrieval_data
from .randomness import derive_seed, seeded
from .registry import DATASETS, DatasetSpec
from .train_images import Draw, TrainImages
from .transforms import Normalizer, padded_crop_transform, training_transform

__all__ = [
    "DATASETS",
    "BadImage",
    "ClassificationData",
    "DatasetReport",
    "DatasetSpec",
    "DeviceAugmentation",
    "Draw",
    "EvalImages",
    "ImageSet",
    "Normalizer",
    "RetrievalData",
    "SplitReport",
    "TrainImages",
    "UnreadableImageError",
    "check_dataset",
    "derive_seed",
    "find_bad_images",
    "load_classification_data",
    "load_images",
    "load_retrieval_data",
    "padded_crop_transform",
    "seeded",
    "training_transform",
]
