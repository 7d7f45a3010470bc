"""Batch samplers whose order depends on (seed, epoch) alone, so that a resumed run sees the same batches."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler

from idml_hf.data import Draw, generator


class RandomBatchSampler(Sampler[list[Draw]]):
    """Every image once an epoch, in random order; the last, smaller batch is dropped.

    Batches are slices of one permutation, so two batches of B in a row hold the images of one batch of 2 B.

    Args:
        num_images: Number of images.
        batch_size: Images in a batch. Fewer images than this make one batch of all.
        seed: Seed of the order.
    """

    drop_last = True

    def __init__(self, num_images: int, batch_size: int, seed: int = 0) -> None:
        if num_images < 1:
            raise ValueError("There are no images to train on")
        self.num_images = num_images
        self.batch_size = min(batch_size, num_images)
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order the next iteration gives."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.num_images // self.batch_size

    def _order(self, rng: np.random.Generator) -> np.ndarray:
        return rng.permutation(self.num_images)

    def __iter__(self) -> Iterator[list[Draw]]:
        order = self._order(generator(self.seed, self.epoch))
        for start in range(0, len(self) * self.batch_size, self.batch_size):
            batch = order[start : start + self.batch_size].tolist()
            yield [Draw(self.epoch, start + i, index) for i, index in enumerate(batch)]


def fitting_batch_size(num_images: int, batch_size: int, multiple: int = 1, processes: int = 1) -> int:
    """The batch size on each device, `batch_size` unless an epoch would then leave out many of the images.

    Where more than a tenth would be, an epoch has one step more of a smaller batch.

    Args:
        num_images: Number of training images.
        batch_size: Images in a batch, on each device.
        multiple: What a smaller batch size must be a multiple of, K of P x K batches.
        processes: Devices that share a step.

    Example:
        >>> fitting_batch_size(179, 120), fitting_batch_size(5864, 120)
        (89, 120)
    """
    joined = batch_size * processes
    if num_images <= joined or num_images % joined <= num_images / 10:
        return batch_size
    smaller = num_images // -(-num_images // joined) // processes
    return max(multiple, smaller - smaller % multiple)


class PKBatchSampler(RandomBatchSampler):
    """Batches of P classes with K images of each.

    Each class is cut into runs of K of its images in random order (a class with fewer repeats some); the runs are
    shuffled, and dealt so that a batch holds P different classes. So an epoch shows every image about once, and
    large classes more often than small ones.

    Args:
        labels: `(N,)` class of each image.
        classes_per_batch: P.
        images_per_class: K.
        seed: Seed of the order.

    Raises:
        ValueError: if there are fewer than P classes.
    """

    def __init__(self, labels: np.ndarray, classes_per_batch: int, images_per_class: int, seed: int = 0) -> None:
        super().__init__(len(labels), classes_per_batch * images_per_class, seed)
        self.batch_size = classes_per_batch * images_per_class
        self.classes_per_batch = classes_per_batch
        self.images_per_class = images_per_class
        by_class = np.argsort(labels, kind="stable")
        counts = np.unique(labels, return_counts=True)[1]
        self._images = np.split(by_class, np.cumsum(counts)[:-1])
        if len(counts) < classes_per_batch:
            raise ValueError(
                f"A batch of {classes_per_batch} classes with {images_per_class} images each needs at least "
                f"{classes_per_batch} classes; there are {len(counts)}. Lower the batch size."
            )
        self._runs_per_class = -(-counts // images_per_class)
        self._num_batches = max(1, int(counts.sum()) // self.batch_size)

    def __len__(self) -> int:
        return self._num_batches

    def _order(self, rng: np.random.Generator) -> np.ndarray:
        k = self.images_per_class
        runs = []
        for images in self._images:
            shuffled = rng.permutation(images)
            # the last run is filled from the first, so a batch holds an image twice only where its class is too small
            shuffled = np.resize(shuffled, -(-len(shuffled) // k) * k)
            runs.append(shuffled.reshape(-1, k))
        # Serving the classes with most runs left first keeps every batch full of different classes to the end.
        left = self._runs_per_class.copy()
        batches: list[np.ndarray] = []
        for _ in range(self._num_batches):
            if (left > 0).sum() < self.classes_per_batch:
                left = np.maximum(left, self._runs_per_class)
            jitter = rng.random(len(left))
            # a class is drawn with probability proportional to its runs left (Efraimidis and Spirakis, 2006)
            with np.errstate(divide="ignore"):
                key = np.where(left > 0, np.log(jitter) / np.maximum(left, 1), -np.inf)
            chosen = np.argpartition(-key, self.classes_per_batch - 1)[: self.classes_per_batch]
            left[chosen] -= 1
            batches.extend(runs[c][left[c] % len(runs[c])] for c in chosen)
        return np.concatenate(batches)


__all__ = ["PKBatchSampler", "RandomBatchSampler", "fitting_batch_size"]
