"""Multiple choice."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

from raylora.errors import UserError
from raylora.metrics.base import (
    Estimate,
    Metric,
    MetricRow,
    OptionScores,
    Value,
    check_choice,
    check_lengths,
    mean_estimate,
    parts_estimate,
)
from raylora.metrics.core.references import metadata_of
from raylora.metrics.core.text import normalise

NORMS = ("none", "tokens", "characters")
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_NUMBERED = re.compile(r"(?i)(?<!\w)(?:answer|option|choice|solution|ending)\s?(\d+)(?!\w)")
_MARK = re.compile(r"(?i)\b(?:answer|option|choice)\b\s*(?:is|:)\s*:?\s*")
_LETTER = re.compile(r"\s*[(\[*]*([A-Za-z])(?:[)\].,:*]+(?=\s|$)|\s*$|\s*\n)")
_ANOTHER = re.compile(r"\s*(?:,|&|/|and\b|or\b)?\s*[(\[*]*[A-Z](?:[)\].,:*]|\s*$|\s+(?:and|or)\b)")
# A capital letter that stands alone, `A` and `I` as words aside; and one that is said to be the answer.
_ALONE = r"(?:[B-HJ-Z]|A(?!\s+(?!(?:and|or|because|since|is|as)\b)\w))(?![\w'\u2019])"
_MENTIONED = re.compile(rf"(?<![\w'\u2019])({_ALONE})")
_CLAIMED = re.compile(
    r"(?:^\W*|(?i:\b(?:is|be|choose|pick|select|think|say|option|choice|answer)\b\W{0,3}|['\u2019]s\W{1,3}|"
    rf"\\boxed\W{{1,2}}(?:text\W)?))({_ALONE})"
)


class Choice(Metric):
    """Share of rows for which the right one of several options is chosen, in what is generated or by likelihood.

    A row's options are the texts under `choices` in its metadata, or those of this metric. Its answer is the text of an
    option, its letter, its number (`answer2`, or 2) or, under `answer_index` in the metadata, its place from 0.

    Generated, a completion chooses by the text of an option, its letter or its number, after `answer is` where it says
    so; where it names none or several, it chooses nothing, unless the first one counts. By likelihood, the option that
    the model holds most likely after the prompt is chosen, the first of equals; with `normalise`, per token or per
    character of the option. All three come as parts. Nothing is generated then.

    Args:
        how: `text` or `likelihood`.
        normalise: `none`, `tokens` or `characters`: by what an option's log-likelihood is divided.
        choices: the options of all rows.
        template: what the likelihood is of: `{text}`, `{letter}` and `{number}` of the option.
        index_from: the first option's number, where an answer is a number: 0 or 1.
        several: of a completion that names several options, `wrong`, or `first`: the first that it names by its text
            counts, as LLM-Adapters measure.
    """

    name = "choice"
    summary = "multiple choice: the option named in the completion, or the one that is most likely"
    key = "accuracy"

    def __init__(
        self,
        *,
        how: str = "text",
        normalise: str = "none",
        choices: Sequence[str] | None = None,
        template: str = " {text}",
        index_from: int = 1,
        several: str = "wrong",
    ) -> None:
        check_choice(self.name, "several", several, ("wrong", "first"))
        check_choice(self.name, "how", how, ("text", "likelihood"))
        check_choice(self.name, "normalise", normalise, NORMS)
        if index_from not in (0, 1) or isinstance(index_from, bool):
            raise UserError.at(
                "choice.index_from", f"{index_from!r} is not allowed; choose 0 or 1", value=index_from, allowed=(0, 1)
            )
        if choices is not None:
            choices = _checked(choices, "choice.choices")
        try:
            if template.format(text="", letter="", number=0) == template:
                raise ValueError("no {text}, {letter} or {number}")
        except (KeyError, IndexError, ValueError, AttributeError) as error:
            raise UserError.at(
                "choice.template",
                f"{template!r} is not allowed; give text with {{text}}, {{letter}} or {{number}}",
                value=template,
            ) from error
        self.how, self.normalise, self.template, self.index_from = how, normalise, template, index_from
        self.choices, self.several = choices, several
        self.needs = "text" if how == "text" else "options"

    def options(self, row: MetricRow) -> list[str]:
        """What the likelihood of each option of a row is of."""
        return [
            self.template.format(text=text, letter=_LETTERS[place], number=place + 1)
            for place, text in enumerate(self._texts(row))
        ]

    def measure(self, model: Any, tokenizer: Any, rows: Sequence[MetricRow]) -> list[OptionScores]:
        """The model's `OptionScores` of each row, `(n,)`, on the device that it is on."""
        from raylora.metrics.core.likelihood import option_scores

        encoded = [_encoded(tokenizer, row, self.options(row)) for row in rows]
        pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0
        return option_scores(model, [ids for ids, _ in encoded], [options for _, options in encoded], pad_id=pad)

    def score(self, outputs: Sequence[Any], rows: Sequence[MetricRow]) -> list[Value]:
        """Whether each is right; by likelihood as `NORMS`, `(n, 3)`."""
        check_lengths(outputs, rows)
        if self.how == "text":
            return [
                float(self._chosen(text, row) == self._answer(row)) for text, row in zip(outputs, rows, strict=True)
            ]
        return [self._by_likelihood(scores, row) for scores, row in zip(outputs, rows, strict=True)]

    def summarise(self, values: Sequence[Value]) -> Estimate:
        if self.how == "text":
            return mean_estimate([float(value) for value in values])  # type: ignore[arg-type]
        return parts_estimate(values, NORMS, self.normalise)

    def _by_likelihood(self, scores: OptionScores, row: MetricRow) -> tuple[float | str, ...]:
        texts, answer = self.options(row), self._answer(row)
        if len(scores.log_likelihoods) != len(texts):
            raise ValueError(f"options: {len(scores.log_likelihoods)} scores for {len(texts)} options of a row")
        lengths = {
            "none": [1] * len(texts),
            "tokens": scores.tokens,
            "characters": [len(text.strip()) for text in texts],
        }
        return tuple(float(_most_likely(scores.log_likelihoods, lengths[norm]) == answer) for norm in NORMS)

    def _texts(self, row: MetricRow) -> list[str]:
        found = self.choices if self.choices is not None else metadata_of(row).get("choices")
        if found is None:
            raise UserError.at(
                "task.metrics", "choice needs options: give choices, or a list under `choices` in each row's metadata"
            )
        return _checked(found, "metadata.choices")

    def _answer(self, row: MetricRow) -> int:
        texts, answer = self._texts(row), str(row["answer"]).strip()
        place = metadata_of(row).get("answer_index")
        if place is None:
            place = self._place(answer, texts)
        if not isinstance(place, int) or not 0 <= place < len(texts):
            raise UserError.at(
                "answer",
                f"{answer!r} is none of the options ({', '.join(texts)}); give the text, the letter or the "
                "number of one; choice.index_from says whether numbers begin with 0",
                value=answer,
                allowed=texts,
            )
        return place

    def _place(self, answer: str, texts: list[str]) -> int | None:
        named = [normalise(text) for text in texts]
        if normalise(answer) in named:
            return named.index(normalise(answer))
        bare = answer.strip("().: ").upper()
        if len(bare) == 1 and bare in _LETTERS:
            return _LETTERS.index(bare)
        numbered = _NUMBERED.fullmatch(answer)
        if numbered:
            return int(numbered.group(1)) - 1
        return int(bare) - self.index_from if bare.isascii() and bare.isdigit() and len(bare) < 3 else None

    def _chosen(self, completion: str, row: MetricRow) -> int | None:
        texts = self._texts(row)
        whole = normalise(completion)
        named = [normalise(text) for text in texts]
        if whole in named:
            return named.index(whole)
        if self.several == "first" and (mentioned := _mentioned(completion, named)):
            return named.index(mentioned[0])
        marks = list(_MARK.finditer(completion))
        for part in [completion[mark.end() :].partition("\n")[0] for mark in marks[-1:]] + [completion]:
            place = _read(part, named)
            if place is None and not any(re.search(r"\d", name) for name in named):
                bare = part.strip(" ().:*\n")
                place = int(bare) - self.index_from if re.fullmatch(r"[0-9]{1,2}", bare) else None
            if place is not None:
                return place if 0 <= place < len(texts) else None
        return None


def _encoded(tokenizer: Any, row: MetricRow, options: Sequence[str]) -> tuple[list[int], list[list[int]]]:
    """Token ids of a row's prompt and of its options; of a tokenised row, as its response would be tokenised."""
    from raylora.metrics.core.likelihood import encode_options

    prompt, ids = row["prompt"], row.get("prompt_ids")
    if ids is None:
        return encode_options(tokenizer, prompt, options)
    gap = "" if not prompt or prompt[-1].isspace() else " "
    texts = [gap + option.lstrip(" ") for option in options]
    return list(map(int, ids)), [list(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in texts]


def _read(text: str, named: Sequence[str]) -> int | None:
    """The place of the one option that a text names; None where there is none, or more than one."""
    if normalise(text) in named:
        return named.index(normalise(text))
    letter = _LETTER.match(text)
    if letter and not _ANOTHER.match(text, letter.end()):
        return _LETTERS.index(letter.group(1).upper())
    numbers = {int(number) - 1 for number in _NUMBERED.findall(text)}
    if numbers:
        return numbers.pop() if len(numbers) == 1 else None
    letters = {letter.upper() for letter in re.findall(r"(?<!\w)\(([A-Za-z])\)(?!\w)", text)}
    if letters:
        return _LETTERS.index(letters.pop()) if len(letters) == 1 else None
    found = set(_mentioned(text, named))
    if found:
        return named.index(found.pop()) if len(found) == 1 else None
    alone = {_LETTERS.index(letter) for letter in _MENTIONED.findall(text)}
    claimed = {_LETTERS.index(letter) for letter in _CLAIMED.findall(text)}
    return claimed.pop() if claimed and claimed == alone and len(alone) == 1 else None


def _mentioned(text: str, named: Sequence[str]) -> list[str]:
    """The options whose texts stand in a text, as whole words, in the order in which they do."""
    ordered = sorted((name for name in named if name), key=len, reverse=True)
    if not ordered:
        return []
    return re.findall(rf"(?<!\w)(?:{'|'.join(map(re.escape, ordered))})(?!\w)", normalise(text))


def _most_likely(log_likelihoods: Sequence[float], lengths: Sequence[int]) -> int | None:
    """The place of the best; None where none is finite."""
    means = [
        value / max(1, length) if math.isfinite(value) else -math.inf
        for value, length in zip(log_likelihoods, lengths, strict=True)
    ]
    best = max(means, default=-math.inf)
    return means.index(best) if best > -math.inf else None


def _checked(choices: Any, field: str) -> list[str]:
    fits = isinstance(choices, list | tuple) and 2 <= len(choices) <= len(_LETTERS)
    if not fits or len(set(map(str, choices))) < len(choices):
        raise UserError.at(field, f"{choices!r} is not allowed; give a list of 2 to 26 different texts", value=choices)
    return [str(text) for text in choices]
