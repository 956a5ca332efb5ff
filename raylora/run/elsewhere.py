"""Packages that may be in another environment than this one."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys

from raylora.errors import UserError


def find_python(package: str, variable: str, option: str, remedy: str) -> str:
    """The Python that has a package: that which an environment variable names, else this one.

    Args:
        option: what asked for it.
        remedy: how to install it.

    Raises:
        UserError: neither has it.
    """
    named = os.environ.get(variable)
    if not named:
        if importlib.util.find_spec(package) is not None:
            return sys.executable
        raise UserError.at(
            option,
            f"{package} is not installed; {remedy}, or set {variable} to the Python of an environment that has it",
            value=package,
        )
    if not _has(named, package):
        raise UserError(
            f"{variable} = {named}: it is no Python that has {package}; {remedy} there", field=variable, value=named
        )
    return named


def _has(python: str, package: str) -> bool:
    ask = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({package!r}) is None)"
    try:
        return subprocess.run([python, "-c", ask], capture_output=True, check=False).returncode == 0
    except OSError:
        return False
