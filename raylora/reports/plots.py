"""Plots: matplotlib where the extra `report` is installed, drawn to files that depend on the figures alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from raylora.errors import UserError
from raylora.spec.paths import writable_file


def load_pyplot(field: str = "") -> Any:
    """`matplotlib.pyplot` without a display, whose SVG files are the same for the same figures.

    Args:
        field: what the user asked for, to begin the refusal with.

    Raises:
        UserError: matplotlib is missing.
    """
    try:
        import matplotlib
    except ImportError:
        begin = f"{field}: " if field else ""
        raise UserError(f"{begin}matplotlib is missing; install the extra `report`", field=field) from None
    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "raylora"
    from matplotlib import pyplot

    return pyplot


def check_plot(path: str | Path, option: str) -> None:
    """Finds out before the work whether a plot can be written there.

    Raises:
        UserError: matplotlib is missing, has no format of this suffix, or the file cannot be written.
    """
    load_pyplot(option)
    from matplotlib.backend_bases import FigureCanvasBase

    kinds, kind = FigureCanvasBase.get_supported_filetypes(), Path(path).suffix.lower().removeprefix(".")
    if kind and kind not in kinds:
        raise UserError(
            f"{option} {path}: no format of plots; allowed: {', '.join(sorted(kinds))}",
            field=option,
            value=str(path),
            allowed=sorted(kinds),
        )
    writable_file(path, option)


def save_plot(figure: Any, path: Path, option: str) -> Path:
    """Writes a figure and closes it; its folder is made, and a file depends on the figure alone.

    Raises:
        UserError: the file cannot be written in that format.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, **({"metadata": {"Date": None}} if path.suffix == ".svg" else {}))
    except (OSError, ValueError) as error:
        raise UserError(f"{option} {path}: {str(error).splitlines()[0]}", field=option, value=str(path)) from None
    finally:
        load_pyplot(option).close(figure)
    return path
