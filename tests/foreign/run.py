"""Run transformers' own common tests, of the version that is installed, against the models and the image processor.

    python tests/foreign/run.py [--sdist FILE] [arguments of pytest]

The tests are not part of an installed transformers: they come from its source distribution on the package index, which
is unpacked into a temporary folder, together with `parameterized`, which they need. Nothing is kept. With `--sdist` a
file at hand is used instead. Which tests are left out, and why, stands in `idml_common.py`.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import transformers

HERE = Path(__file__).parent
# what the common tests import from files that the source distribution leaves out, and use for other kinds of models
LEFT_OUT = {
    "tests/exporters/test_export.py": "class ExportTesterMixin:\n    pass\n",
    "tests/generation/test_utils.py": "class GenerationTesterMixin:\n    pass\n",
    "utils/fetch_hub_objects_for_ci.py": "def url_to_local_path(url):\n    return url\n",
}


def unpack(folder: Path, sdist: Path | None) -> Path:
    """Put the tests into a folder, and return the root that they are imported from."""
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    if sdist is None:
        wanted = f"transformers=={transformers.__version__}"
        options = ["--no-binary", "transformers", "--no-deps", "--no-build-isolation", "--dest", str(folder)]
        subprocess.run([*pip, "download", *options, wanted], check=True)
        (sdist,) = folder.glob("transformers-*.tar.gz")
    subprocess.run([*pip, "install", "--no-deps", "--target", str(folder / "packages"), "parameterized"], check=True)
    with tarfile.open(sdist) as archive:
        wanted_files = [member for member in archive.getmembers() if "/tests/" in member.name]
        archive.extractall(folder, members=wanted_files, filter="data")
    (root,) = (path.parent for path in folder.glob("transformers-*/tests"))
    for name, content in LEFT_OUT.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
        (path.parent / "__init__.py").touch()
    (root / "tests" / "__init__.py").touch()
    return root


def main() -> int:
    """Unpack, run, and return pytest's exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sdist", type=Path, help="source distribution of the installed transformers")
    options, rest = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        root = unpack(folder, options.sdist)
        path = [str(root), str(folder / "packages"), str(HERE.parents[1])]
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join([*path, *filter(None, [os.environ.get("PYTHONPATH")])]),
            "HF_HUB_OFFLINE": "1",
        }
        own = ["-p", "no:cacheprovider", "-c", os.devnull, "--rootdir", temporary, "-q", "-W", "ignore"]
        command = [sys.executable, "-m", "pytest", *own, str(HERE / "idml_common.py"), *rest]
        return subprocess.run(command, env=environment, cwd=temporary, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
