"""The cards of the models in the result tables, from the records that stand beside them.

    python model_cards/update.py                                       write all cards again
    python model_cards/update.py RUN_FOLDER NAME [--baseline FOLDER]   take a run's records into NAME first

A record is what a run's folder holds besides weights: configuration, metrics, settings and pictures. The cards name
the repository `your-name/NAME`; pushing the run's folder puts in the real one.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from idml_hf.hub import RunRecord, render_card, write_model_card
from idml_hf.hub.record import public_files

CARDS = Path(__file__).parent
OWNER = "your-name"


def card_folders() -> list[Path]:
    """The folders that hold a record."""
    return sorted(path.parent for path in CARDS.glob("*/config.json"))


def card_text(folder: Path) -> str:
    """The card that a folder's records make."""
    return render_card(RunRecord.read(folder), f"{OWNER}/{folder.name}", folder.name, on_hub=True)


def take_over(run: Path, name: str, baseline: Path | None) -> Path:
    """Copy the records of a run, without its weights and the paths of its machine."""
    write_model_card(run, baseline=baseline)  # keeps the baseline with the run
    record = RunRecord.read(run)
    folder = CARDS / name
    folder.mkdir(exist_ok=True)
    for file in ("config.json", *record.pictures):
        shutil.copyfile(run / file, folder / file)
    for file, content in public_files(run).items():
        (folder / file).write_bytes(content + b"\n")
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", nargs="?", type=Path, help="folder of a run")
    parser.add_argument("name", nargs="?", help="name of its card")
    parser.add_argument("--baseline", type=Path, help="folder of the same run with the plain loss")
    given = parser.parse_args()
    if given.run is not None:
        if given.name is None:
            parser.error("give the card a NAME")
        take_over(given.run, given.name, given.baseline)
    for folder in card_folders():
        (folder / "README.md").write_text(card_text(folder), encoding="utf-8")


if __name__ == "__main__":
    main()
