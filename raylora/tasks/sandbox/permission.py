"""Whether this process may run a model's programs without walls, where none can be had: said for each run anew."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_PERMITTED: ContextVar[bool] = ContextVar("unsafe_code", default=False)


def permitted() -> bool:
    """Whether `--unsafe-code` was said."""
    return _PERMITTED.get()


@contextmanager
def unsafe_code(allowed: bool = True) -> Iterator[None]:
    """Tasks that are made within may run programs without walls."""
    token = _PERMITTED.set(allowed)
    try:
        yield
    finally:
        _PERMITTED.reset(token)
