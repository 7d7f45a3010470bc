"""Push the folder of a run to the Hub; the same as `idml-hf push`.

python training_scripts/push_to_hub.py FOLDER ORG/NAME [--private] [--with-code]
"""

from __future__ import annotations

import sys

from idml_hf.cli import main

if __name__ == "__main__":
    main(["push", *sys.argv[1:]])
