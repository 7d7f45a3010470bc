import io

import numpy as np
import PIL.Image
import pytest

from idml_hf.audit.copies import find_copies
from idml_hf.audit.pictures import look_at
from idml_hf.data import ImageSet, load_images


def encoded(picture: PIL.Image.Image, kind: str = "PNG", **how: object) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **how)
    return file.getvalue()


WAYS = {
    "exact": lambda picture: encoded(picture),
    "recompressed": lambda picture: encoded(picture, "JPEG", quality=60),
    "resized": lambda picture: encoded(picture.resize((36, 36), PIL.Image.Resampling.BICUBIC)),
    "crop": lambda picture: encoded(picture.crop((3, 2, 45, 44))),
}


@pytest.fixture(scope="module")
def originals() -> ImageSet:
    images = load_images("emoji-mini", split="test")
    return images.select(np.arange(0, 900, 9))


@pytest.mark.parametrize("way", WAYS)
def test_copies_are_found(originals, way):
    sources = np.arange(0, 100, 5)
    files = [WAYS[way](originals[int(at)]) for at in sources]
    copies = ImageSet.from_encoded(files, [None] * 20, [0] * 20, ["copy"], ids=list(map(str, range(20))))
    seen, seen_copies = look_at(originals), look_at(copies)
    small = np.concatenate([seen.small, seen_copies.small])
    features = (
        np.asarray(small, dtype=np.float32).reshape(len(small), 8, 4, 8, 4, 3).mean(axis=(2, 4)).reshape(120, -1)
    )
    found = find_copies(features, small, seen.digests + seen_copies.digests)
    pairs = dict(zip(map(tuple, found.pairs.tolist()), found.likeness.tolist(), strict=True))
    assert sum((int(source), 100 + at) in pairs for at, source in enumerate(sources)) >= (18 if way == "crop" else 20)
    assert sum(pair[1] >= 100 for pair in pairs) <= 22
    assert all((score == 1) == (way == "exact") for pair, score in pairs.items() if pair[1] >= 100)


def test_a_picture_without_copies_has_none():
    rng = np.random.default_rng(0)
    small = rng.integers(256, size=(6, 32, 32, 3), dtype=np.uint8)
    found = find_copies(rng.normal(size=(6, 8)).astype(np.float32), small, [bytes([at]) for at in range(6)])
    assert not len(found.pairs) and not len(found.likeness)
