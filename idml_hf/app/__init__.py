"""A page to search an index with pictures in the browser."""

from .page import build_app, launch_app

__all__ = ["build_app", "launch_app"]
