"""Train a retrieval model: the same as `idml-hf train`.

python training_scripts/train_retrieval.py training_scripts/recipes/emoji.yaml --output runs/emoji
accelerate launch --multi_gpu --num_processes 2 training_scripts/train_retrieval.py --dataset photos/ --output my-model
"""

from __future__ import annotations

import sys

from idml_hf.cli import main

if __name__ == "__main__":
    main(["train", *sys.argv[1:]])
