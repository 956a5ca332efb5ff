"""The figures of `raylora curvature` as a file: read back for a table, or for a resumed run."""

from __future__ import annotations

import json
from pathlib import Path

from raylora.errors import UserError


def read_figures(path: str | Path) -> dict[str, object]:
    """What an earlier run of the command wrote with `--json`.

    Raises:
        UserError: it is something else.
    """
    path = Path(path).expanduser()
    try:
        figures = json.loads(path.read_text())
        if {"about", "blocks", "variants"} <= set(figures):
            return figures
    except FileNotFoundError:
        raise UserError.at(
            "SPEC", f"{path} does not exist; give a spec, or a file of figures from --json", value=str(path)
        ) from None
    except (OSError, UnicodeDecodeError, ValueError, TypeError):
        pass
    raise UserError.at(
        "SPEC", f"{path} holds no figures of this command; give a spec, or a file from --json", value=str(path)
    )
