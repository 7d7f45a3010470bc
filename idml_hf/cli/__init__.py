"""The command line, `idml-hf`."""

from .main import main

__all__ = ["main"]
