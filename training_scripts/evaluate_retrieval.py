"""Measure retrieval, clustering and uncertainty of a model; the same as `idml-hf evaluate`.

python training_scripts/evaluate_retrieval.py MODEL --dataset emoji-mini --output report
"""

from __future__ import annotations

import sys

from idml_hf.cli import main

if __name__ == "__main__":
    sys.argv[1:1] = ["evaluate"]
    main()
