"""`python -m idml_hf`: the command line, for programs that start modules, as `accelerate launch -m idml_hf`."""

from __future__ import annotations

from .cli import main

if __name__ == "__main__":
    main()
