"""Changes to the files of an index that its checksums do not show."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from idml_hf.index_files import MANIFEST, StoredIndex, data_folder, file_entry, manifest_of, manifest_text

OWN = ("format", "version", "files", "checksum")


def make_checksums_fit(folder: Path, **changes: Any) -> None:
    """Write `index.json` anew for the files that are there, with some of its entries changed."""
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    version = manifest["version"]
    rest = {key: value for key, value in manifest.items() if key not in OWN} | changes
    files = {path.name: file_entry(path) for path in sorted(data_folder(folder, version).iterdir())}
    text = manifest_text(manifest_of(StoredIndex(rest, {}, {}), version, files))
    (folder / MANIFEST).write_text(text, encoding="utf-8")
