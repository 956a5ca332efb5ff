"""Plots: matplotlib where the extra `report` is installed, drawn to files that depend on the figures alone."""

from __future__ import annotations

from typing import Any

from raylora.errors import UserError


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
