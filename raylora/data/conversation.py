"""Conversations as people keep them: OpenAI's messages, ShareGPT's turns; and as a normalised row holds them.

A conversation of more than a question and its answer travels in the column `conversation` as JSON:
`{"messages": [{"role": ..., "content": ..., ...}], "tools": [...]}`, cut behind the last assistant turn, which is the
row's response. `{"text": true}` marks a row that is plain text to go on writing, without a chat.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from raylora.data.problems import BROKEN, EMPTY_RESPONSE, NO_ASSISTANT_TURN, NO_USER_TURN, NULL_RESPONSE

Message = dict[str, Any]
Columns = dict[str, str | None]

_ROLES = {
    "human": "user", "user": "user", "prompter": "user", "question": "user",
    "gpt": "assistant", "chatgpt": "assistant", "assistant": "assistant", "bot": "assistant", "model": "assistant",
    "bing": "assistant", "bard": "assistant", "answer": "assistant", "function_call": "assistant",
    "system": "system", "developer": "system",
    "tool": "tool", "function": "tool", "observation": "tool", "tool_response": "tool", "ipython": "tool",
}  # fmt: skip
PLAIN_TEXT = json.dumps({"text": True})
_TRANSCRIPT = re.compile(r"(?:^|\n\n)(Human|Assistant): ")


class BadTurn(ValueError):
    """A turn that is none; the message says why in a few words."""


def as_text(value: object) -> str | None:
    """A value as the text of it; None stays None."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False, default=str)
    return str(value)


def looks_like_turns(value: object) -> bool:
    """Whether a value of a column is a conversation: a list of turns, or the JSON text of one."""
    try:
        found = _list(value)
    except BadTurn:
        return False
    return bool(found) and isinstance(found[0], Mapping) and bool({"role", "from"} & set(found[0]))


def _list(value: object) -> list[object]:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            raise BadTurn("the turns are no list") from None
    if isinstance(value, Mapping) and value and all(isinstance(column, list) for column in value.values()):
        # Columns of turns, as `datasets` keeps a sequence of structures.
        return [dict(zip(value, turn, strict=True)) for turn in zip(*value.values(), strict=True)]
    if not isinstance(value, Sequence) or isinstance(value, bytes):
        raise BadTurn("the turns are no list")
    return list(value)


def read_turns(value: object) -> list[Message]:
    """Turns in any of the forms that are read, as messages with `role` and `content`.

    Raises:
        BadTurn: no list of turns, an unknown role, or content other than text.
    """
    return [_message(turn) for turn in _list(value)]


def _message(turn: object) -> Message:
    if not isinstance(turn, Mapping):
        raise BadTurn(f"a turn is {type(turn).__name__}")
    named = turn.get("role", turn.get("from"))
    role = _ROLES.get(str(named).lower())
    if role is None:
        raise BadTurn(f"role {named!r}")
    given = turn.get("content", turn.get("value", turn.get("text")))
    message: Message = {"role": role, "content": _content(given)}
    if turn.get("tool_calls"):
        message["tool_calls"] = [_call(call) for call in _list(turn["tool_calls"])]
    for name in ("name", "tool_call_id", "reasoning_content"):
        if turn.get(name) is not None:
            message[name] = turn[name]
    return message


def _content(value: object) -> str | None:
    if not isinstance(value, list):
        return as_text(value)
    texts = []
    for piece in value:
        if isinstance(piece, str):
            texts.append(piece)
        elif isinstance(piece, Mapping) and piece.get("type", "text") == "text" and piece.get("text") is not None:
            texts.append(str(piece["text"]))
        else:
            kind = piece.get("type") if isinstance(piece, Mapping) else type(piece).__name__
            raise BadTurn(f"content of type {kind}")
    return "".join(texts)


def _call(call: object) -> object:
    """A tool call with its arguments as an object, which templates expect, rather than as JSON text."""
    if not isinstance(call, Mapping):
        raise BadTurn(f"a tool call is {type(call).__name__}")
    call = {name: value for name, value in call.items() if value is not None}
    inner = call.get("function")
    target = dict(inner) if isinstance(inner, Mapping) else call
    if isinstance(target.get("arguments"), str):
        with contextlib.suppress(ValueError):
            target["arguments"] = json.loads(target["arguments"])
    return {**call, "function": target} if isinstance(inner, Mapping) else target


def read_transcript(text: str) -> list[Message] | None:
    """The turns of a text with `Human: ` and `Assistant: ` before them; None for other text."""
    pieces = _TRANSCRIPT.split(text)
    if len(pieces) < 3 or pieces[0].strip():
        return None
    return [
        {"role": "user" if who == "Human" else "assistant", "content": said.strip()}
        for who, said in zip(pieces[1::2], pieces[2::2], strict=True)
    ]


def to_columns(messages: Sequence[Message], tools: object = None, answer: str | None = None) -> Columns:
    """Columns of a normalised row for a conversation: its last assistant turn is the response.

    A question and its answer alone need no `conversation`. `problem` says what is missing.
    """
    last = max((at for at, message in enumerate(messages) if message["role"] == "assistant"), default=None)
    if last is None:
        return problem_row(NO_ASSISTANT_TURN)
    turns, final = list(messages[: last + 1]), messages[last]
    users = [message for message in turns if message["role"] == "user" and message["content"] is not None]
    if not users:
        return problem_row(NO_USER_TURN)
    said, called = final["content"], final.get("tool_calls")
    if not called and (said is None or not said.strip()):
        return problem_row(NULL_RESPONSE if said is None else EMPTY_RESPONSE)
    response = said if said and said.strip() else json.dumps(called, ensure_ascii=False)
    columns: Columns = {"prompt": users[-1]["content"], "response": response, "answer": answer or response}
    columns |= {"metadata": "{}", "conversation": None, "problem": None}
    if isinstance(tools, str):
        try:
            tools = json.loads(tools)
        except ValueError:
            tools = None
    plain = [set(message) == {"role", "content"} for message in turns]
    if [message["role"] for message in turns] != ["user", "assistant"] or not all(plain) or tools:
        whole = {"messages": turns, **({"tools": tools} if tools else {})}
        columns["conversation"] = json.dumps(whole, ensure_ascii=False, default=str)
    return columns


def problem_row(problem: str) -> Columns:
    """A row that cannot be used."""
    nothing = dict.fromkeys(("prompt", "response", "answer", "conversation"))
    return {**nothing, "metadata": "{}", "problem": problem}


def broken(reason: str) -> Columns:
    """A row that cannot be read, and why."""
    return problem_row(f"{BROKEN}: {reason}")
