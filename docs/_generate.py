"""A hook of MkDocs: the reference pages that are made from the code, so that they cannot fall behind it.

- `reference/fields.md`: every field of the spec, from the pydantic model's types, defaults and descriptions.
- `reference/commands.md`: every command with its arguments, from the command line's own parser.
- `reference/api/*.md`: one page per package, its modules' public names, for mkdocstrings to fill.
- `notebooks/*.md`: the notebooks, which are kept without outputs.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from pydantic import BaseModel
from pydantic.fields import FieldInfo

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("raylora", "searchers", "trainables", "clusters")

NOTEBOOKS = ROOT / "notebooks"

sys.path.insert(0, str(ROOT))


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put the pages of the packages behind the reference's own."""
    for section in config.nav or ():
        if "Reference" in section:
            section["Reference"].append({"Python": [{name: _page(name)} for name in packages()]})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages."""
    pages = {"reference/fields.md": fields(), "reference/commands.md": commands()}
    pages |= {_page(name): package_page(name) for name in packages()}
    pages |= {f"notebooks/{path.stem}.md": notebook_page(path) for path in sorted(NOTEBOOKS.glob("*.ipynb"))}
    for path, content in pages.items():
        files.append(File.generated(config, path, content=content))
    return files


def packages() -> list[str]:
    """Dotted names of the packages of the house, their sub-packages included."""
    folders = (path.parent for name in PACKAGES for path in sorted((ROOT / name).rglob("__init__.py")))
    names = (".".join(folder.relative_to(ROOT).parts) for folder in folders)
    return [name for name in names if not any(part.startswith("_") for part in name.split("."))]


def package_page(package: str) -> str:
    """The package's docstring, then its modules, one after the other."""
    folder = ROOT.joinpath(*package.split("."))
    modules = sorted(path.stem for path in folder.glob("*.py") if not path.stem.startswith("_"))
    blocks = [f"# {package}", f"::: {package}\n    options:\n      show_root_heading: false"]
    blocks += [f"## {package}.{name}\n\n::: {package}.{name}\n    options:\n      heading_level: 3" for name in modules]
    return "\n\n".join(blocks) + "\n"


def notebook_page(path: Path) -> str:
    """A notebook's cells, text as it is and code as such, and where the file lies."""
    import nbformat

    cells = nbformat.read(path, as_version=4).cells
    blocks = [
        re.sub(r"\((\w+)\.ipynb\)", r"(\1.md)", cell.source)
        if cell.cell_type == "markdown"
        else f"```python\n{cell.source}\n```"
        for cell in cells
    ]
    blocks.insert(1, f"*To run it yourself: `notebooks/{path.name}`.*")
    return "\n\n".join(blocks) + "\n"


def fields() -> str:
    """Every field of the spec: name, type, default and meaning, a table per section."""
    from raylora.spec import Spec

    text = ["# Every field of the spec", "[The spec](../spec.md) says how they work together."]
    for name, model in _sections(Spec, ""):
        text.append(f"## {name or 'At the top'}\n\n{(model.__doc__ or '').strip().splitlines()[0]}")
        rows = ["| field | type | default | meaning |", "|---|---|---|---|"]
        for key, field in model.model_fields.items():
            if not _model(field):
                dotted = f"{name}.{key}" if name else key
                kind = f"`{_type(field.annotation)}{_bounds(field)}`"
                rows.append(f"| `{dotted}` | {kind} | {_default(field)} | {field.description or ''} |")
        text.append("\n".join(rows))
    return "\n\n".join(text) + "\n"


def commands() -> str:
    """Every command's help, as `--help` prints it."""
    from raylora.cli import make_parser

    text = ["# Commands", "Each prints this with `--help`."]
    for name, parser in _commands(make_parser()):
        text.append(f"## {name}\n\n```text\n{parser.format_help().strip()}\n```")
    return "\n\n".join(text) + "\n"


def _page(package: str) -> str:
    return f"reference/api/{package}.md"


def _sections(model: type[BaseModel], name: str) -> Iterator[tuple[str, type[BaseModel]]]:
    yield name, model
    for key, field in model.model_fields.items():
        if below := _model(field):
            yield from _sections(below, f"{name}.{key}" if name else key)


def _model(field: FieldInfo) -> type[BaseModel] | None:
    kind = field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def _type(kind: Any) -> str:
    """A type in words: `list of int`, `'ddp' or 'deepspeed'`."""
    origin, inside = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _type(inside[0])
    if origin is Literal:
        return " or ".join(map(repr, inside))
    if origin in (Union, UnionType):
        return " or ".join(map(_type, inside))
    if origin is not None:
        return f"{origin.__name__} of {' to '.join(map(_type, inside))}"
    return {NoneType: "null", Any: "any"}.get(kind) or getattr(kind, "__name__", str(kind))


def _bounds(field: FieldInfo) -> str:
    signs = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}
    found = [(signs[name], getattr(rule, name)) for rule in field.metadata for name in signs if hasattr(rule, name)]
    return "".join(f", {sign} {limit}" for sign, limit in found)


def _default(field: FieldInfo) -> str:
    return "required" if field.is_required() else f"`{field.get_default(call_default_factory=True)!r}`"


def _commands(parser: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    yield parser.prog, parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                yield from _commands(below)
