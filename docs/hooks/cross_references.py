"""Links in docstrings: [`~idml_hf.data.ImageSet`] becomes a link to where that name is documented."""

from __future__ import annotations

import re
from typing import Any

import griffe

LINK = re.compile(r"\[`(~?)([\w.]+)(\(\))?`\](?!\[|\()")


class CrossReferences(griffe.Extension):
    """Resolves names between [` and `] as Python would at that place; what is not of this package stays code."""

    def on_package(self, *, pkg: griffe.Module, **kwargs: Any) -> None:
        """Rewrite the docstrings of a package, once all its names are known."""
        if pkg.path == "idml_hf":
            self._rewrite(pkg, pkg)

    def _rewrite(self, obj: Any, package: griffe.Module) -> None:
        if obj.docstring is not None:
            obj.docstring.value = LINK.sub(lambda match: self._link(match, obj, package), obj.docstring.value)
        for member in obj.members.values():
            if not member.is_alias:
                self._rewrite(member, package)

    def _link(self, match: re.Match[str], obj: Any, package: griffe.Module) -> str:
        short, name, call = match.groups()
        shown = f"`{name.rsplit('.', 1)[-1] if short else name}{call or ''}`"
        target = self._target(name, obj, package)
        return shown if target is None else f"[{shown}][{target}]"

    @staticmethod
    def _target(name: str, obj: Any, package: griffe.Module) -> str | None:
        try:
            path = name if name.startswith("idml_hf.") else obj.resolve(name)
            if not path.startswith("idml_hf."):
                return None
            return package[path.removeprefix("idml_hf.")].canonical_path
        except (KeyError, griffe.GriffeError):
            return None
