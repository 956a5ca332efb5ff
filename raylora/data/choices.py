"""Questions with options: where a file keeps them, and such a row as a prompt and the letter of the right option."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from string import ascii_uppercase

from raylora.data.conversation import BadTurn, as_text

_LISTS = ("choices", "options", "endings", "candidates", "alternatives", "answer_choices")
# One column for each option: `A` and `B`, `option_a`, `opa`, `choice1`, `sol1`, `answerA`, `ending0`.
_ONE_EACH = re.compile(r"(?i)(|(?:option|choice|op|sol|answer|ending|alternative)[ _]?)([a-h]|\d)")
_QUESTIONS = (
    "question", "question_stem", "stem", "prompt", "query", "ctx", "goal", "sentence", "premise", "problem", "input",
    "instruction",
)  # fmt: skip
_KEYS = (
    "answerkey", "answer_key", "answer_idx", "answer_index", "correct_answer", "correct_option", "correct", "cop",
    "answer", "label", "gold", "target", "solution",
)  # fmt: skip
_CONTEXTS = ("context", "passage", "article", "premise")


def find(present: Sequence[str], sample: Sequence[Mapping[str, object]]) -> tuple[dict[str, str], tuple[str, ...]]:
    """The columns `prompt`, `response` (which option is right) and `context`, and those of the options.

    Both are empty where the rows are no questions with options, or what most of them say is right is none of these.
    """
    by_name = {name.strip().lower(): name for name in reversed(present)}
    options = _list_column(by_name, sample) or _columns_of_one_each(present)

    def first(names: Sequence[str]) -> str | None:
        return next((by_name[name] for name in names if name in by_name and by_name[name] not in options), None)

    question, key = first(_QUESTIONS), first(_KEYS)
    if not options or question is None or key is None or not _mostly_told(key, options, sample):
        return {}, ()
    context = next((by_name[n] for n in _CONTEXTS if n in by_name and by_name[n] not in (question, *options)), None)
    return {"prompt": question, "response": key} | ({"context": context} if context is not None else {}), options


def _mostly_told(key: str, options: Sequence[str], sample: Sequence[Mapping[str, object]]) -> bool:
    """Whether at least half of the rows that have an answer name one of their options."""
    first, told = first_number(key, options, sample), []
    for row in sample:
        if as_text(row.get(key)):
            try:
                right_one(row.get(key), *options_of(row, options), first)
            except BadTurn:
                told.append(False)
            else:
                told.append(True)
    return 2 * sum(told) >= len(told)


def _list_column(by_name: Mapping[str, str], sample: Sequence[Mapping[str, object]]) -> tuple[str, ...]:
    for name in _LISTS:
        column = by_name.get(name)
        if column is not None and any(len(_read(row.get(column))[0]) > 1 for row in sample):
            return (column,)
    return ()


def _columns_of_one_each(present: Sequence[str]) -> tuple[str, ...]:
    groups: dict[str, dict[str, str]] = {}
    for name in present:
        if parts := _ONE_EACH.fullmatch(name.strip()):
            groups.setdefault(parts.group(1).lower(), {})[parts.group(2).lower()] = name
    for group in groups.values():
        marks = sorted(group)
        if marks[:2] in (["a", "b"], ["0", "1"], ["1", "2"]):
            return tuple(group[mark] for mark in marks)
    return ()


def first_number(key: str, columns: Sequence[str], sample: Sequence[Mapping[str, object]]) -> int:
    """The number of the first option: 1 where the answers of `sample` are numbers from 1 on, else 0."""
    numbers = [int(text) for row in sample if (text := as_text(row.get(key)) or "").isdecimal()]
    most = max((len(options_of(row, columns)[0]) for row in sample), default=0)
    return int(bool(numbers) and min(numbers) > 0 and max(numbers) == most)


def options_of(row: Mapping[str, object], columns: Sequence[str]) -> tuple[list[str], list[str]]:
    """The options' texts, and their names where the row has such."""
    if len(columns) == 1:
        return _read(row.get(columns[0]))
    texts = [as_text(row.get(name)) for name in columns]
    return [text for text in texts if text is not None and text.strip()], []


def _read(value: object) -> tuple[list[str], list[str]]:
    """Options out of a list of texts, of mappings with `text` and `label`, or a mapping with a list of either."""
    if isinstance(value, Mapping):
        texts, names = value.get("text"), value.get("label")
    elif isinstance(value, list | tuple) and value and all(isinstance(one, Mapping) for one in value):
        texts, names = [one.get("text") for one in value], [one.get("label") for one in value]
    else:
        texts, names = value, None
    if not isinstance(texts, list | tuple):
        return [], []
    named = list(names) if isinstance(names, list | tuple) and len(names) == len(texts) else []
    return [as_text(text) or "" for text in texts], [as_text(name) or "" for name in named]


def right_one(value: object, texts: Sequence[str], names: Sequence[str], first: int) -> int:
    """Which option is right, from 0 on.

    Args:
        value: the option's name, its number, its letter, or its text.

    Raises:
        BadTurn: it is none of the options.
    """
    text = (as_text(value) or "").strip()
    number = isinstance(value, int) and not isinstance(value, bool)
    bare = text.strip("().: ")
    places = [list(names).index(text)] if text in names else []
    places += [list(texts).index(text)] if text in texts and not number else []
    places += [int(bare) - first] if bare.isdecimal() else []
    places += [ascii_uppercase.index(bare.upper())] if len(bare) == 1 and bare.upper() in ascii_uppercase else []
    if not places or not 0 <= places[0] < len(texts):
        raise BadTurn(f"the answer {text!r} is none of its {len(texts)} options")
    return places[0]


def asked(prompt: str, context: str | None, texts: Sequence[str]) -> str:
    """The question with its options, one a line behind its letter.

    Raises:
        BadTurn: there are not 2 to 26 options.
    """
    if not 2 <= len(texts) <= len(ascii_uppercase):
        raise BadTurn(f"{len(texts)} options; allowed: 2 to {len(ascii_uppercase)}")
    listed = "\n".join(f"{letter}. {text}" for letter, text in zip(ascii_uppercase, texts, strict=False))
    return "\n\n".join(part for part in (context, prompt, f"{listed}\nAnswer:") if part and part.strip())
