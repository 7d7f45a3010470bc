"""Stanford Online Products with `Ebay_train.txt` and `Ebay_test.txt` (Song et al., 2016)."""

from __future__ import annotations

from pathlib import Path

from idml_hf.data.annotation_files import integer, locate, path_below, read_rows
from idml_hf.data.image_set import ImageSet

COLUMNS = ("image_id", "class_id", "super_class_id", "path")


def read_sop(root: Path) -> dict[str, ImageSet]:
    """Read the official class-disjoint split; a class is a product.

    Raises:
        FileNotFoundError: if a file is missing.
        ValueError: naming a line without a class, or a path that leads out of the folder.
    """
    folder = locate(root, "Ebay_train.txt", "Stanford_Online_Products")
    files = {"train": folder / "Ebay_train.txt", "test": folder / "Ebay_test.txt"}
    rows = {
        split: [
            (integer(class_id, "class_id", source), path_below(folder, relative, source))
            for _, class_id, _, relative in read_rows(source, COLUMNS, header=True)
        ]
        for split, source in files.items()
    }
    products = sorted({product for split in rows.values() for product, _ in split})
    number = {product: label for label, product in enumerate(products)}
    names = [str(product) for product in products]
    return {
        split: ImageSet.from_files([path for _, path in listed], [number[product] for product, _ in listed], names)
        for split, listed in rows.items()
    }
