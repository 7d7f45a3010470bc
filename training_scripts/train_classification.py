"""Train an introspective image classifier: the same as `idml-hf train --task classification`.

python training_scripts/train_classification.py training_scripts/recipes/classification/fashion-mnist.yaml \
    --output my-classifier
"""

from __future__ import annotations

import sys

from idml_hf.cli import main

if __name__ == "__main__":
    main(["train", "--task", "classification", *sys.argv[1:]])
