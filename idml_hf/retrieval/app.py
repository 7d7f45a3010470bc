"""Moved to `idml_hf.app`; kept for one release, since Spaces that were pushed earlier import it."""

from idml_hf.app import launch_app

__all__ = ["launch_app"]
