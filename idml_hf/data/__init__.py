"""Data sets: what is known by name, folders, parquet files and the Hub, through one door."""

from .checking import BadImage, find_bad_images
from .decoding import UnreadableImageError
from .image_set import ImageSet
from .loading import RetrievalData, load_images, load_retrieval_data
from .randomness import derive_seed, seeded
from .registry import DATASETS, DatasetSpec
from .train_images import Draw, TrainImages
from .transforms import Normalizer, training_transform

__all__ = [
    "DATASETS",
    "BadImage",
    "DatasetSpec",
    "Draw",
    "ImageSet",
    "Normalizer",
    "RetrievalData",
    "TrainImages",
    "UnreadableImageError",
    "derive_seed",
    "find_bad_images",
    "load_images",
    "load_retrieval_data",
    "seeded",
    "training_transform",
]
