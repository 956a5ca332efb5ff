"""The error of an option that a searcher cannot take."""

from __future__ import annotations


class OptionError(ValueError):
    """A searcher refuses what an option, a knob or a prompt was set to: `field: told`, one line with the remedy.

    Attributes:
        field: name of the option, dotted where it is inside one (`prior.rank`).
        told: what is wrong with it.
        value: what it was set to; None where the line says all there is.
        allowed: what would be taken instead: values, or words.

    All survive pickling, and with it a remote call.
    """

    def __init__(self, field: str, told: str, *, value: object = None, allowed: object = None) -> None:
        super().__init__(field, told)
        self.field, self.told = field, told
        self.value, self.allowed = value, allowed

    def __str__(self) -> str:
        return f"{self.field}: {self.told}"
