"""Pages of the reference, made from the package when the site is built: one for the command line, one a room."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import typer
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

PACKAGE = Path(__file__).parents[2] / "idml_hf"
# the modules at the root of the package, gathered by what they are for
ROOT_PAGES = {
    "model": (
        "modeling_idml",
        "modeling_metric_learning",
        "configuration_idml",
        "image_processing_idml",
        "uncertainty_head",
        "timm_trunk",
        "reference_memory",
    ),
    "similarity": ("similarity",),
    "embedding": ("embedding", "embedding_shards"),
    "ground": ("metric_names", "errors", "files", "image_sheet", "export_onnx"),
}
TITLES = {
    "architectures": "Architectures for small pictures",
    "data": "Data sets",
    "ground": "Names, messages, files",
    "hub": "The Hub",
    "model": "Model",
}
COMMAND_LINE = "cli"
# addresses of the first edition, which only forward
FORWARDED = "retrieval"


def pages() -> dict[str, list[str]]:
    """The pages of the Python reference: name -> its public modules."""
    out = {}
    for page, names in ROOT_PAGES.items():
        out[page] = [f"idml_hf.{name}" for name in names if (PACKAGE / f"{name}.py").exists()]
    listed = {module for modules in out.values() for module in modules}
    rest = [p for p in sorted(PACKAGE.glob("[!_]*.py")) if f"idml_hf.{p.stem}" not in listed]
    out["ground"] += [f"idml_hf.{p.stem}" for p in rest]
    for room in sorted(p.parent for p in PACKAGE.glob("[!_]*/__init__.py")):
        if room.name in (COMMAND_LINE, FORWARDED):
            continue
        modules = {".".join(("idml_hf", *_parts(file))) for file in room.rglob("*.py")}
        out[room.name] = sorted(name for name in modules if "._" not in name)
    return out


def _parts(file: Path) -> tuple[str, ...]:
    parts = file.relative_to(PACKAGE).with_suffix("").parts
    return parts[:-1] if parts[-1] == "__init__" else parts


def title(page: str) -> str:
    """What a page is called."""
    return TITLES.get(page, page.replace("_", " ").capitalize())


def api_page(page: str, modules: list[str]) -> str:
    """A page of the Python reference, as Markdown for mkdocstrings."""
    return "\n\n".join([f"# {title(page)}", *(_entry(module) for module in modules)]) + "\n"


def _entry(module: str) -> str:
    """What mkdocstrings is to show of a module; of a package what is written there, the rest having entries."""
    file = PACKAGE.parent.joinpath(*module.split("."), "__init__.py")
    if not file.exists():
        return f"::: {module}"
    members = [name for name in _defined_names(file) if not name.startswith("_")]
    return f"::: {module}\n    options:\n      members: {members or 'false'}"


def _defined_names(file: Path) -> list[str]:
    names = []
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.append(node.name)
        elif isinstance(node, ast.Assign):
            names += [target.id for target in node.targets if isinstance(target, ast.Name)]
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.append(node.target.id)
    return names


def command_line_page() -> str:
    """All commands with their options and examples, as Markdown."""
    from idml_hf.cli.main import app

    group: Any = typer.main.get_command(app)
    out = ["# Command line", group.help, ""]
    for name, command in _commands(group, "idml-hf"):
        context = command.make_context(name, [], resilient_parsing=True)
        usage = " ".join([name, *command.collect_usage_pieces(context)])
        out += [f"## {name}", command.help or "", "", "```text", usage, "```", ""]
        if command.epilog:
            out += ["```bash", _wrapped(command.epilog.removeprefix("Example: ")), "```", ""]
        shown = [p for p in command.params if p.name != "help" and not p.hidden]
        records = [p.get_help_record(context) for p in shown]
        rows = [f"| `{_cell(flags)}` | {_cell(text)} |" for flags, text in records]
        out += ["| Option | |", "|---|---|", *rows, ""] if rows else []
    return "\n".join(out)


def metrics_page() -> str:
    """What the keys of `metrics.json` mean, as Markdown."""
    from idml_hf.metric_names import METRICS, PREFIXES, SIGNALS, SUFFIXES

    out = [
        "# metrics.json",
        "",
        "Each command that measures writes it: one flat JSON object. A key is put together as",
        "",
        "```text",
        "[PREFIX] METRIC [_SIGNAL] [SUFFIX]",
        "```",
        "",
        "so `plain_aurc_margin` is the AURC of the margin without the rule of groups. Without a signal it is that of "
        "the uncertainty, whose AUROC is called `r_auroc`. Shares are from 0 to 1; what is undefined is `null`. "
        "Beside the metrics stand `dataset`, `protocol` (`plain`, or `grouped:COLUMN` where matches of the same class "
        "and group do not count), `ranking`, and settings of the run.",
        "",
        "| Metric | | Better |",
        "|---|---|---|",
    ]
    better = {True: "higher", False: "lower", None: ""}
    out += [f"| `{key}` | {_cell(entry.name)} | {better[entry.higher_is_better]} |" for key, entry in METRICS.items()]
    for head, words in (("Prefix", PREFIXES), ("Suffix", SUFFIXES)):
        out += ["", f"| {head} | |", "|---|---|", *(f"| `{key}` | {text} |" for key, text in words.items())]
    out += ["", "| Signal | |", "|---|---|", *(f"| `{s.key}` | {s.phrase} |" for s in SIGNALS.values() if s.key)]
    return "\n".join([*out, ""])


def _commands(group: Any, prefix: str) -> list[tuple[str, Any]]:
    out = []
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            out += _commands(command, f"{prefix} {name}")
        else:
            out.append((f"{prefix} {name}", command))
    return out


def _wrapped(command: str, width: int = 76) -> str:
    """A command over as many lines as it takes, broken before options."""
    lines = [""]
    for part in re.split(r" (?=--)", command):
        if lines[-1] and len(lines[-1]) + len(part) > width:
            lines.append(f"    {part}")
        else:
            lines[-1] = f"{lines[-1]} {part}".lstrip() if len(lines) == 1 else f"{lines[-1]} {part}"
    return " \\\n".join(lines)


def _cell(text: str | None) -> str:
    text = re.sub(r"\[default: \(?(.*?)\)?(; .*)?\]$", r"(default: \1)", " ".join((text or "").split()))
    return text.replace("|", "\\|")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put the generated pages into the navigation."""
    for entry in config.nav or []:
        if "Reference" in entry:
            entry["Reference"] += [{title(page): f"reference/python-{page}.md"} for page in pages()]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages."""
    for page, modules in pages().items():
        files.append(File.generated(config, f"reference/python-{page}.md", content=api_page(page, modules)))
    files.append(File.generated(config, "reference/command-line.md", content=command_line_page()))
    files.append(File.generated(config, "reference/metrics.md", content=metrics_page()))
    return files
