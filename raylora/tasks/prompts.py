"""Prompts as published, and rows of them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from raylora.data.conversation import BadTurn, Columns, as_text
from raylora.errors import UserError

FORMS = ("plain", "alpaca")
# Stanford Alpaca (Taori et al., 2023); MetaMath and LLM-Adapters train and measure with the same.
ALPACA = (
    "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Response:"
)
ALPACA_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further context. Write a "
    "response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:"
)


def check_form(form: str) -> None:
    """Raise UserError unless `form` is one of `FORMS`."""
    if form not in FORMS:
        raise UserError.at(
            "task.options.form", f"unknown {form!r}; choose one of {', '.join(FORMS)}", value=form, allowed=FORMS
        )


def framed(form: str, instruction: str | None, context: str | None = None) -> str | None:
    """An instruction as the model is asked: `plain`, or within Alpaca's frame."""
    if instruction is None:
        return None
    if context and context.strip():
        if form == "alpaca":
            return ALPACA_INPUT.format(instruction=instruction, input=context)
        return f"{instruction}\n\n{context}"
    return ALPACA.format(instruction=instruction) if form == "alpaca" else instruction


def first(raw: Mapping[str, object], *names: str) -> str | None:
    """The first of the columns that has a value, as text."""
    return next((as_text(raw[name]) for name in names if raw.get(name) is not None), None)


def as_list(raw: Mapping[str, Any], name: str) -> list[Any]:
    """A column that holds a list, or the JSON text of one; empty where it is null.

    Raises:
        BadTurn: it holds something else.
    """
    value = raw.get(name)
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            value = 0
    if value is None:
        return []
    if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable):
        raise BadTurn(f"{name} is no list")
    return list(value)


def row(prompt: str | None, response: str | None, answer: str | None = None, /, **metadata: object) -> Columns:
    """Columns of a normalised row; metadata that are None are left out."""
    about = {name: value for name, value in metadata.items() if value is not None}
    text = json.dumps(about, ensure_ascii=False, default=_plain)
    return {"prompt": prompt, "response": response, "answer": answer or response, "metadata": text}


def _plain(value: object) -> Any:
    return value.tolist() if hasattr(value, "tolist") else str(value)
