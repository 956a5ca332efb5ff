"""What the columns of a file mean, recognised by their names and values; and raw rows as normalised ones by that."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from string import Formatter, ascii_uppercase
from typing import Any, Literal

from raylora.data import choices
from raylora.data.conversation import (
    PLAIN_TEXT,
    BadTurn,
    Columns,
    Message,
    as_text,
    broken,
    looks_like_turns,
    problem_row,
    read_transcript,
    read_turns,
    to_columns,
)
from raylora.data.problems import EMPTY_RESPONSE, NO_PROMPT, NULL_RESPONSE
from raylora.data.texts import TEXTS
from raylora.errors import UserError
from raylora.spec.text import meant

Kind = Literal["chat", "choice", "pair", "labelled", "text", "template"]

ROLES = (
    "messages",
    "prompt",
    "response",
    "answer",
    "context",
    "system",
    "history",
    "tools",
    "text",
    "label",
    "choices",
)
_CHATS = ("messages", "conversations", "conversation", "dialogue", "dialog", "turns")
_PROMPTS = ("prompt", "question", "instruction", "query", "problem", "input", "user")
_RESPONSES = ("response", "completion", "answer", "answers", "output", "solution", "target", "assistant")
_CONTEXTS = ("context", "passage", "input")
_SYSTEMS = ("system", "system_prompt")
_TEXTS = ("text", "content", "sentence", "review", "title", "sentence1", "sentence2", "premise", "hypothesis")
_LABELS = ("label", "labels", "label_text", "class", "category", "sentiment", "intent", "emotion", "topic")


@dataclass(frozen=True)
class Form:
    """How the rows of a file are read.

    Attributes:
        kind: `chat` (lists of turns), `choice` (a question, its options, and which is right), `pair` (a prompt and its
            response), `labelled` (texts and a label), `text` (to go on writing) or `template` (the user's own).
        columns: the column of each role in `ROLES` that there is; for `labelled` and `choice` see `texts`.
        texts: columns of the text of labelled rows, of the options of a question, or of the fields of a template.
        classes: names of the classes of columns that hold numbers of them.
        template: the prompt with columns in braces.
        labels: what to write for each value of the response.
        first: the first option's number, where the right one is told by its number.
        listed: what a labelled row may be answered with, where the prompt says so.
    """

    kind: Kind
    columns: Mapping[str, str] = field(default_factory=dict)
    texts: tuple[str, ...] = ()
    classes: Mapping[str, Sequence[str]] = field(default_factory=dict)
    template: str | None = None
    labels: Mapping[str, str] | None = None
    first: int = 0
    listed: tuple[str, ...] = ()

    @property
    def told(self) -> str:
        """What was recognised, in words."""
        named = ", ".join(role if role == name else f"{role} = {name}" for role, name in self.columns.items())
        if self.kind == "labelled":
            listed = f": {either(self.listed)}" if self.listed else ""
            return f"labelled rows (text = {' + '.join(self.texts)}, label = {self.columns['label']}{listed})"
        if self.kind == "choice":
            from_1 = ", numbered from 1" if self.first else ""
            return f"questions with options ({named}, options = {' + '.join(self.texts)}{from_1})"
        words = {
            "chat": "conversations",
            "pair": "prompts and responses",
            "text": "plain text",
            "template": "a template",
        }
        return f"{words[self.kind]} ({named})"

    def normalise(self, raw: Mapping[str, object]) -> Columns:
        """A raw row as the columns of a normalised one; what is missing is its `problem`.

        Raises:
            UserError: `labels` has no text for a value.
        """
        try:
            return getattr(self, f"_{self.kind}")(raw)
        except BadTurn as error:
            return broken(str(error))

    def _get(self, raw: Mapping[str, object], role: str) -> Any:
        name = self.columns.get(role)
        return None if name is None else raw.get(name)

    def _chat(self, raw: Mapping[str, object]) -> Columns:
        turns: list[Message] = []
        if "prompt" in self.columns:
            turns += _as_turns(self._get(raw, "prompt"), "user")
        if "messages" in self.columns:
            turns += self._turns(self._get(raw, "messages"), after=turns)
        if "response" in self.columns:
            turns += _as_turns(self._get(raw, "response"), "assistant")
        return to_columns(_with_system(turns, self._get(raw, "system")), self._get(raw, "tools"))

    def _turns(self, value: object, after: list[Message]) -> list[Message]:
        if value is None:
            return []
        transcript = read_transcript(value) if isinstance(value, str) else None
        turns = transcript or (read_turns(value) if looks_like_turns(value) else _as_turns(value, "assistant"))
        return turns[len(after) :] if after and turns[: len(after)] == after else turns

    def _pair(self, raw: Mapping[str, object]) -> Columns:
        prompt = as_text(self._get(raw, "prompt"))
        accepted = _accepted(self._get(raw, "response"))
        answers = _accepted(self._get(raw, "answer")) if "answer" in self.columns else accepted
        context = as_text(self._get(raw, "context"))
        if context and context.strip():
            prompt = f"{prompt}\n\n{context}" if prompt else context
        missing = _missing(prompt, accepted[0] if accepted else None)
        if missing:
            return problem_row(missing)
        answers = answers if answers and answers[0] is not None else accepted
        extra = self._history(raw)
        response = self._label(accepted[0])
        answer = self._label(answers[0]) or response
        if extra or self._get(raw, "system"):
            turns = [*extra, {"role": "user", "content": prompt}, {"role": "assistant", "content": response}]
            columns = to_columns(_with_system(turns, self._get(raw, "system")), answer=answer)
        else:
            columns = {"prompt": prompt, "response": response, "answer": answer, "metadata": "{}"}
        if len(answers) > 1:
            columns["metadata"] = json.dumps({"references": answers}, ensure_ascii=False)
        return columns

    def _choice(self, raw: Mapping[str, object]) -> Columns:
        question, key = as_text(self._get(raw, "prompt")), self._get(raw, "response")
        missing = _missing(question, as_text(key))
        if question is None or missing:
            return problem_row(missing or NO_PROMPT)
        texts, names = choices.options_of(raw, self.texts)
        prompt = choices.asked(question, as_text(self._get(raw, "context")), texts)
        letter = ascii_uppercase[choices.right_one(key, texts, names, self.first)]
        columns = _plain(prompt, letter)
        return {**columns, "metadata": json.dumps({"choices": texts}, ensure_ascii=False)}

    def _history(self, raw: Mapping[str, object]) -> list[Message]:
        turns: list[Message] = []
        for pair in self._get(raw, "history") or []:
            if not isinstance(pair, Sequence) or isinstance(pair, str) or len(pair) != 2:
                raise BadTurn("the history is no list of pairs")
            turns += [
                {"role": role, "content": as_text(said) or ""}
                for role, said in zip(("user", "assistant"), pair, strict=True)
            ]
        return turns

    def _text(self, raw: Mapping[str, object]) -> Columns:
        text = as_text(self._get(raw, "text"))
        if text is None or not text.strip():
            return problem_row(NULL_RESPONSE if text is None else EMPTY_RESPONSE)
        return {"prompt": "", "response": text, "answer": text, "metadata": "{}", "conversation": PLAIN_TEXT}

    def _labelled(self, raw: Mapping[str, object]) -> Columns:
        column = self.columns["label"]
        texts = [as_text(raw.get(name)) for name in self.texts]
        if not any(text and text.strip() for text in texts):
            return problem_row(NO_PROMPT)
        if len(texts) == 1:
            body = texts[0] or ""
        else:
            body = "\n".join(f"{name}: {text or ''}" for name, text in zip(self.texts, texts, strict=True))
        if self.listed:
            what = f"{column.replace('_', ' ')} of the text{'s' * (len(texts) > 1)}"
            body += f"\n\nChoose the {what}: {either(self.listed)}.\n{column}:"
        else:
            body += f"\n\n{column}:"
        columns = _plain(body, self.label_of(raw))
        return {**columns, "metadata": json.dumps({TEXTS: [text or "" for text in texts]}, ensure_ascii=False)}

    def label_of(self, raw: Mapping[str, object]) -> str | None:
        """What a labelled row is answered with; None without."""
        column = self.columns["label"]
        return self._label(_class(raw.get(column), self.classes.get(column)))

    def _template(self, raw: Mapping[str, object]) -> Columns:
        assert self.template is not None
        prompt = self.template.format(**{name: _or_empty(as_text(raw.get(name))) for name in self.texts})
        return _plain(prompt, self._label(as_text(self._get(raw, "response"))))

    def _label(self, value: str | None) -> str | None:
        if self.labels is None or value is None:
            return value
        if value not in self.labels:
            raise UserError.at(
                "task.options.labels",
                f"none for the value {value!r}; given: {', '.join(self.labels)}",
                value=value,
                allowed=list(self.labels),
            )
        return self.labels[value]


@dataclass(frozen=True)
class Own(Form):
    """A published form of rows, read by a function of the task's own.

    Attributes:
        make: a raw row to the columns of a normalised one; it may raise BadTurn.
        needs: sets of columns, of which a file must have one whole set.
        renamed: published column -> the file's.
    """

    make: Callable[[Mapping[str, object]], Columns] | None = field(default=None, repr=False)
    needs: tuple[tuple[str, ...], ...] = ()
    renamed: Mapping[str, str] = field(default_factory=dict)

    def fitted(self, sample: Sequence[Mapping[str, object]], task: str) -> Own:
        """Itself, where the rows have the columns.

        Raises:
            UserError: they have not.
        """
        present = list(dict.fromkeys(name for row in sample for name in row))
        for role, name in self.renamed.items():
            if name not in present:
                raise _no_column(f"task.columns.{role}", name, present)
        there = {*present, *self.renamed}
        if not any(set(names) <= there for names in self.needs):
            wanted = ", or ".join(" and ".join(names) for names in self.needs)
            raise UserError(
                f"task.path: the rows of {task} need the columns {wanted}; name yours with task.columns, such as "
                f"{{{self.needs[0][0]}: COLUMN}}; present: {', '.join(present) or 'none'}",
                field="task.path",
                value=list(present),
            )
        return self

    @property
    def told(self) -> str:
        return f"the published form ({', '.join(self.needs[0])})"

    def normalise(self, raw: Mapping[str, object]) -> Columns:
        assert self.make is not None
        named = {**raw, **{role: raw.get(name) for role, name in self.renamed.items()}}
        try:
            columns = self.make(named)
        except BadTurn as error:
            return broken(str(error))
        missing = _missing(columns.get("prompt"), columns.get("response"))
        return problem_row(missing) if missing else columns


def either(words: Sequence[str]) -> str:
    """`a, b or c`."""
    return " or ".join(part for part in (", ".join(words[:-1]), words[-1]) if part)


def _or_empty(text: str | None) -> str:
    return "" if text is None else text


def _plain(prompt: str, response: str | None) -> Columns:
    missing = _missing(prompt, response)
    if missing:
        return problem_row(missing)
    return {"prompt": prompt, "response": response, "answer": response, "metadata": "{}"}


def _missing(prompt: str | None, response: str | None) -> str | None:
    if prompt is None or not prompt.strip():
        return NO_PROMPT
    if response is None:
        return NULL_RESPONSE
    return EMPTY_RESPONSE if not response.strip() else None


def _accepted(value: object) -> list[str | None]:
    """The answers that a value stands for: itself, or each of a list of them (SQuAD keeps them under `text`)."""
    if isinstance(value, Mapping) and isinstance(value.get("text"), list):
        value = value["text"]
    if not isinstance(value, list):
        return [as_text(value)]
    return [text for text in map(as_text, value) if text is not None] or [None]


def _class(value: object, names: Sequence[str] | None) -> str | None:
    if names is not None and isinstance(value, int) and 0 <= value < len(names):
        return names[value]
    return as_text(value)


def _as_turns(value: object, role: str) -> list[Message]:
    if looks_like_turns(value):
        return read_turns(value)
    return [] if value is None else [{"role": role, "content": as_text(value)}]


def _with_system(turns: list[Message], system: object) -> list[Message]:
    if not system or any(turn["role"] == "system" for turn in turns):
        return turns
    return [{"role": "system", "content": as_text(system)}, *turns]


# --- recognition ---


def fields(template: str) -> list[str]:
    """Names of the columns that a template has in braces. Raises ValueError for unbalanced braces."""
    return list(dict.fromkeys(name for _, name, _, _ in Formatter().parse(template) if name is not None))


def recognise(
    sample: Sequence[Mapping[str, object]],
    *,
    task: str = "instruct",
    columns: Mapping[str, str] | None = None,
    template: str | None = None,
    response_column: str | None = None,
    labels: Mapping[object, str] | None = None,
    classes: Mapping[str, Sequence[str]] | None = None,
) -> Form:
    """How rows like these are to be read.

    Args:
        sample: the first rows of a file.
        columns: the user's own word, role -> column; roles are those of `ROLES`.
        template, response_column: a prompt with columns in braces and the column of its response.
        labels: what to write for each value of the response.
        classes: names of classes, by column, where the file has them.

    Raises:
        UserError: the columns mean nothing that is known (the message lists them), or one that is named is not there.
    """
    present = list(dict.fromkeys(name for row in sample for name in row))
    shown = ", ".join(present) or "none"
    texts = {str(value): str(label) for value, label in labels.items()} if labels else None
    if template is not None and response_column is not None:
        for name in (*fields(template), response_column):
            if name not in present:
                option = "response_column" if name == response_column else "prompt_template"
                raise _no_column(f"task.options.{option}", name, present)
        return Form("template", {"response": response_column}, tuple(fields(template)), template=template, labels=texts)
    if columns:
        for role, name in columns.items():
            if role not in ROLES:
                raise UserError.at(f"task.columns.{role}", f"no such role; allowed: {', '.join(ROLES)}", allowed=ROLES)
            if name not in present:
                raise _no_column(f"task.columns.{role}", name, present)
        found = _form(dict(columns), sample)
    else:
        roles, options = choices.find(present, sample) if labels is None else ({}, ())
        found = _choice_form(roles, options, sample) if options else _form(_by_name(present, sample), sample)
    if found is None:
        raise UserError(
            f"task.path: the rows of {task} need the columns prompt and response (and optionally answer), question "
            "and answer, messages, conversations, instruction and output, text, a text and its label, or a question "
            "with choices and which is right; name yours "
            f"with task.columns, such as {{prompt: COLUMN, response: COLUMN}}; present: {shown}",
            field="task.path",
            value=list(present),
        )
    return replace(found, classes=classes or {}, labels=texts)


def _no_column(field: str, name: str, present: Sequence[str]) -> UserError:
    shown = ", ".join(present) or "none"
    told = f"no column {name!r}; {meant(name, present)}present: {shown}"
    return UserError.at(field, told, value=name, allowed=list(present))


def _form(roles: dict[str, str], sample: Sequence[Mapping[str, object]]) -> Form | None:
    """The form that these roles make up."""
    if "choices" in roles and "prompt" in roles and ("response" in roles or "answer" in roles):
        roles = {"response": roles.get("answer", ""), **roles}
        return _choice_form({role: roles[role] for role in _QUESTION if role in roles}, (roles["choices"],), sample)
    turns = [role for role in ("prompt", "response") if role in roles and _holds_turns(sample, roles[role])]
    if "messages" in roles or turns:
        return Form("chat", {role: roles[role] for role in ROLES if role in roles and role not in ("text", "label")})
    if "response" not in roles and "answer" in roles:
        roles["response"] = roles["answer"]
    if "prompt" in roles and "response" in roles:
        return Form("pair", {role: roles[role] for role in ROLES if role in roles and role not in ("text", "label")})
    if "label" in roles:
        texts = _text_columns(roles, sample)
        return Form("labelled", {"label": roles["label"]}, texts) if texts else None
    return Form("text", {"text": roles["text"]}) if "text" in roles else None


_QUESTION = ("prompt", "response", "context")


def _choice_form(roles: Mapping[str, str], options: tuple[str, ...], sample: Sequence[Mapping[str, object]]) -> Form:
    first = choices.first_number(roles["response"], options, sample)
    return Form("choice", roles, options, first=first)


def _holds_turns(sample: Sequence[Mapping[str, object]], name: str) -> bool:
    values = [row[name] for row in sample if row.get(name) is not None]
    return bool(values) and looks_like_turns(values[0])


def _text_columns(roles: Mapping[str, str], sample: Sequence[Mapping[str, object]]) -> tuple[str, ...]:
    if "text" in roles:
        return (roles["text"],)
    if "prompt" in roles:
        return (roles["prompt"],)
    present = list(dict.fromkeys(name for row in sample for name in row))
    known = [name for name in present if name.strip().lower() in (*_TEXTS, *_PROMPTS)]
    return tuple(known or [name for name in present if name != roles["label"] and _is_prose(sample, name)])


def _is_prose(sample: Sequence[Mapping[str, Any]], name: str) -> bool:
    values = [value for value in (row.get(name) for row in sample) if value is not None]
    return bool(values) and all(isinstance(value, str) for value in values) and any(" " in value for value in values)


def _by_name(present: Sequence[str], sample: Sequence[Mapping[str, object]]) -> dict[str, str]:
    """Roles by the names that people give such columns; the first that fits."""
    by_name = {name.strip().lower(): name for name in reversed(present)}

    def first(names: Sequence[str], *taken: str | None) -> str | None:
        return next((by_name[name] for name in names if name in by_name and by_name[name] not in taken), None)

    roles: dict[str, str | None] = {"messages": next((by_name[n] for n in _CHATS if n in by_name), None)}
    if roles["messages"] is not None and not any(row.get(roles["messages"]) for row in sample):
        roles["messages"] = None
    roles |= {"system": first(_SYSTEMS), "tools": first(("tools", "functions"))}
    if roles["messages"] is None and "chosen" in by_name:
        roles |= {"prompt": first(("prompt", "question", "instruction")), "messages": by_name["chosen"]}
    elif roles["messages"] is None:
        prompt = first(_PROMPTS)
        # A file with both has the worked response and, apart from it, the bare answer.
        response = first(_RESPONSES, prompt)
        if prompt is None and (response := first((*_RESPONSES, "code", "summary", "highlights"))) is not None:
            prompt = first(("text", "article", "document", "content", "source"), response)
        answer = first(("answer", "answers"), prompt, response)
        roles |= {"prompt": prompt, "response": response, "answer": answer}
        if prompt is not None and response is not None:
            roles |= {"context": first(_CONTEXTS, prompt, response, answer), "history": first(("history",))}
        else:
            roles |= {"prompt": None, "response": None, "label": first(_LABELS), "text": first(("text", "content"))}
    return {role: name for role, name in roles.items() if name is not None}
