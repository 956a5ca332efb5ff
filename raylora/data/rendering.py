"""Rows as the model reads them: text with the spans that the assistant writes, by the model's own chat template.

A span begins where generation would begin (behind the template's generation prompt) and ends with the token that ends
the turn, so that what is trained on is what the model will be asked to write. Templates that mark what the assistant
writes (`{% generation %}`) are taken at their word. For the others each turn is found by rendering the conversation up
to it, which must be how the whole begins; where a template renders a conversation's past in another way than its last
turn (it drops earlier reasoning, for instance), the turn is looked for in the whole.

Text of a row that spells a control token is no control token: it is marked before rendering (`Renderer.mark`) and
encoded as ordinary text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from raylora.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Message = dict[str, Any]
Span = tuple[int, int]

OPEN, CLOSE = "\ue0f0", "\ue0f1"  # of the private use area: around text that only looks like a control token
_MARKERS = re.compile(r"\{%-?\s*generation\s*-?%\}")
_PROBE_USER, _PROBE_ANSWER = "Uzq7", "Azq7"


class Refused(ValueError):
    """The chat template cannot render a conversation; the message says why in a few words."""


@dataclass(frozen=True)
class Rendered:
    """A conversation as text, with marks where it spells control tokens.

    Attributes:
        text: up to the end of the last assistant turn.
        spans: what the assistant writes, ascending; the last one is the response.
    """

    text: str
    spans: tuple[Span, ...]


@dataclass(frozen=True)
class Turn:
    """What a template puts around an answer behind the generation prompt.

    Attributes:
        lead, tail: text before and after it, ahead of the end token.
        end: the token that ends the turn.
        trims: whether the answer loses the white space around it.
        ended: whether the template itself ends the turn; else the tokenizer's end token is added.
        plain: whether the generation prompt is how the whole conversation begins.
        header: the generation prompt alone.
    """

    lead: str
    tail: str
    end: str
    trims: bool
    ended: bool
    plain: bool
    header: str

    def around(self, answer: str) -> str:
        """The answer as the model has to write it, without the end token."""
        return f"{self.lead}{answer.strip() if self.trims else answer}{self.tail}"


def unmarked(text: str) -> str:
    """Text without the marks of `Renderer.mark`."""
    return text.replace(OPEN, "").replace(CLOSE, "") if OPEN in text else text


class Renderer:
    """Renders rows for one tokenizer.

    Args:
        system: system message of conversations that have none of their own; None leaves it to the template.
        chat_template: whether the tokenizer's chat template is used, if it has one.
        control_tokens: whether text that spells a control token is one; None: in plain text only, which may be a
            rendered conversation.

    Raises:
        UserError: the tokenizer has no end token, or its template refuses the system message or any conversation.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        *,
        system: str | None = None,
        chat_template: bool = True,
        control_tokens: bool | None = None,
    ) -> None:
        if tokenizer.eos_token_id is None:
            raise UserError.at(
                "model", "its tokenizer has no end-of-sequence token; set eos_token in tokenizer_config.json"
            )
        self.tokenizer, self.system, self.control_tokens = tokenizer, system, control_tokens
        self.chat = bool(chat_template and tokenizer.chat_template)
        template = tokenizer.chat_template if self.chat else ""
        self.template = template if isinstance(template, str) else template.get("default", "")
        self.marked = bool(_MARKERS.search(self.template))
        self.thinks = "enable_thinking" in self.template
        self.calls = "tool_calls" in self.template

    # --- control tokens ---

    @cached_property
    def specials(self) -> list[str]:
        """The control tokens, longest first."""
        added = self.tokenizer.added_tokens_decoder.values()
        found = {token.content for token in added if token.special} | set(self.tokenizer.all_special_tokens)
        return sorted((token for token in found if token.strip()), key=lambda token: (-len(token), token))

    @cached_property
    def _spelled(self) -> re.Pattern[str]:
        return re.compile("|".join(map(re.escape, self.specials)) or "(?!)")

    @cached_property
    def _starts(self) -> list[str]:
        """What every control token begins with: cheap to look for."""
        return sorted({token[:2] for token in self.specials})

    def mark(self, text: str) -> str:
        """Text with marks around everything in it that spells a control token."""
        if self.control_tokens or not any(start in text for start in self._starts):
            return text
        return self._spelled.sub(lambda found: f"{OPEN}{found.group()}{CLOSE}", unmarked(text))

    def _mark_all(self, value: object) -> Any:
        if isinstance(value, str):
            return self.mark(value)
        if isinstance(value, list):
            return [self._mark_all(item) for item in value]
        return {key: self._mark_all(item) for key, item in value.items()} if isinstance(value, Mapping) else value

    # --- the template ---

    def render(
        self, messages: Sequence[Message], *, tools: object = None, generation: bool = False, thinking: bool = False
    ) -> str:
        """The template's text of a conversation; `generation` adds the generation prompt.

        Raises:
            Refused: the template cannot render it.
        """
        return self._rendered([messages], tools=tools, generation=generation, thinking=thinking)[0]

    def _rendered(
        self, chats: Sequence[Sequence[Message]], *, tools: Any = None, generation: bool, thinking: bool = False
    ) -> list[str]:
        from jinja2.exceptions import TemplateError

        options: dict[str, Any] = {"enable_thinking": thinking} if self.thinks else {}
        try:
            found: Any = self.tokenizer.apply_chat_template(
                [list(chat) for chat in chats],
                tools=tools or None,
                tokenize=False,
                add_generation_prompt=generation,
                **options,
            )
            return [str(text) for text in found]
        except (TemplateError, TypeError, ValueError, KeyError, AttributeError) as error:
            raise Refused(str(error).strip().split("\n")[0] or type(error).__name__) from error

    def _head(self) -> list[Message]:
        return [] if self.system is None else [{"role": "system", "content": self.system}]

    def prompts(self, texts: Sequence[str]) -> list[str]:
        """The rendered beginnings of conversations with one question each, up to where the answer begins."""
        head = self._head()
        chats = [[*head, {"role": "user", "content": text}] for text in texts]
        try:
            return self._rendered(chats, generation=True)
        except Refused as error:
            if head:
                raise UserError.at(
                    "task.system",
                    f"the model's chat template refuses the message ({error}); "
                    "set task.system to null or task.chat_template to false",
                    value=self.system,
                ) from error
            told = f"its chat template fails ({error}); set task.chat_template to false"
            raise UserError.at("model", told) from error

    @cached_property
    def turn(self) -> Turn:
        """How the template has an answer, found by rendering one."""
        end = str(self.tokenizer.eos_token)
        if not self.chat:
            return Turn("", "", end, False, False, True, "")
        asked = [*self._head(), {"role": "user", "content": _PROBE_USER}]
        prompt = self.prompts([_PROBE_USER])[0]
        try:
            whole = self.render([*asked, {"role": "assistant", "content": f"\t{_PROBE_ANSWER}\t"}])
            header = prompt.removeprefix(self.render(asked))
        except Refused:
            return Turn("", "", end, False, False, False, "")
        at = whole.rfind(_PROBE_ANSWER)
        if at < 0:
            return Turn("", "", end, False, False, False, header)
        before, after = whole[:at], whole[at + len(_PROBE_ANSWER) :]
        trims = not (before.endswith("\t") and after.startswith("\t"))
        if not trims:
            before, after = before[:-1], after[1:]
        plain = before.startswith(prompt)
        found = self._spelled.search(after)
        tail = after[: found.start()] if found else ""
        ended = found is not None and not tail.strip()
        return Turn(
            before[len(prompt) :] if plain else "",
            tail if ended else "",
            found.group() if found and ended else end,
            trims,
            ended,
            plain,
            header,
        )

    def takes_system(self) -> bool:
        """Whether the template shows a system message."""
        chat = [{"role": "system", "content": _PROBE_ANSWER}, {"role": "user", "content": _PROBE_USER}]
        try:
            return _PROBE_ANSWER in self.render(chat)
        except Refused:
            return False

    @cached_property
    def end_id(self) -> int:
        """The token that ends a turn."""
        return int(self.tokenizer.convert_tokens_to_ids(self.turn.end))

    # --- conversations ---

    def conversation(self, messages: Sequence[Message], tools: Any = None) -> Rendered:
        """A conversation that ends with the assistant. A template that knows no tool calls is given them as JSON text.

        Raises:
            Refused: the template cannot render it, or its assistant turns are not to be found in what it renders.
        """
        if self.chat and not self.calls:
            messages = [_spelled_out(message) for message in messages]
        messages = [{**message, **self._mark_all(_without_role(message))} for message in messages]
        if self.system is not None and not any(message["role"] == "system" for message in messages):
            messages = [*self._head(), *messages]
        if not self.chat:
            return self._transcript(messages)
        tools = self._mark_all(tools)
        if self.marked:
            return self._by_markers(messages, tools)
        thinking = any(
            "</think>" in str(message.get("content")) or "reasoning_content" in message for message in messages
        )
        whole = self.render(messages, tools=tools, thinking=thinking)
        spans: list[Span] = []
        for at, message in enumerate(messages):
            if message["role"] == "assistant":
                floor = spans[-1][1] if spans else 0
                span = self._span(messages, at, tools, whole, thinking, floor)
                if span is not None:
                    spans.append(span)
                elif at == len(messages) - 1:
                    raise Refused("it does not show the last answer as it is")
        return self._cut(whole, spans)

    def _span(
        self, messages: Sequence[Message], at: int, tools: object, whole: str, thinking: bool, floor: int
    ) -> Span | None:
        """Where the assistant's turn `at` stands in the whole, from the generation prompt to the end token."""
        before = self.render(messages[:at], tools=tools, generation=True, thinking=thinking) if at else ""
        start = len(before) if before and whole.startswith(before) else self._search(messages, at, tools, whole, floor)
        if start is None or start < floor:
            return None
        said = str(messages[at].get("content") or "").strip()
        place = whole.find(said, start) if said else start
        if place < 0:
            said = said.rpartition("</think>")[2].strip()  # reasoning that is rendered in another way
            place = whole.find(said, start)
            if place < 0:
                return None
        return start, self._end_of_turn(whole, place + len(said))

    def _search(self, messages: Sequence[Message], at: int, tools: object, whole: str, floor: int) -> int | None:
        """Where a turn begins that does not follow the generation prompt as it would when it is the last."""
        try:
            before = self.render(messages[:at], tools=tools) if at else ""
        except Refused:
            before = ""
        header, start = self.turn.header, floor
        if before and whole.startswith(before):
            start = len(before)
        elif header and (found := whole.find(header, floor)) >= 0:
            return found + len(header)
        shared = 0
        while shared < min(len(header), len(whole) - start) and header[shared] == whole[start + shared]:
            shared += 1
        return start + shared if shared else None

    def _end_of_turn(self, whole: str, place: int) -> int:
        """Behind the end token of the turn whose content ends at `place`."""
        turn = self.turn
        if not turn.ended:
            return place
        found = whole.find(turn.end, place)
        return place if found < 0 else found + len(turn.end)

    def _by_markers(self, messages: Sequence[Message], tools: object) -> Rendered:
        from jinja2.exceptions import TemplateError
        from transformers.utils.chat_template_utils import render_jinja_template

        try:
            texts, places = render_jinja_template(
                [[{key: value for key, value in m.items() if value is not None} for m in messages]],
                tools=tools or None,
                chat_template=self.template,
                return_assistant_tokens_mask=True,
                **self.tokenizer.special_tokens_map,
            )
        except (TemplateError, TypeError, ValueError, KeyError, AttributeError) as error:
            raise Refused(str(error).strip().split("\n")[0]) from error
        whole, turn = texts[0], self.turn
        spans = []
        for start, end in places[0]:
            found = whole.find(turn.end, start, end + len(turn.tail) + len(turn.end)) if turn.ended else -1
            spans.append((start, found + len(turn.end) if found >= 0 else end))
        if not spans:
            raise Refused("it marks nothing that the assistant writes")
        return self._cut(whole, spans)

    def _cut(self, whole: str, spans: Sequence[Span]) -> Rendered:
        start, end = spans[-1]
        text = whole[:end]
        if not self.turn.ended:
            text += self.turn.end
        return Rendered(text, (*spans[:-1], (start, len(text))))

    def _transcript(self, messages: Sequence[Message]) -> Rendered:
        """A conversation for a model without a chat template."""
        text, spans = "", []
        for message in messages:
            said = message.get("content") or json.dumps(message.get("tool_calls"), ensure_ascii=False)
            if message["role"] == "system":
                text += f"{said}\n\n" if said else ""
            elif message["role"] == "assistant":
                text += "Assistant:"
                spans.append((len(text), len(text) + len(said) + 1 + len(self.turn.end)))
                text += f" {said}{self.turn.end}\n\n"
            else:
                text += f"{message['role'].capitalize()}: {said}\n\n"
        return Rendered(text[: spans[-1][1]], tuple(spans))


def _without_role(message: Message) -> Message:
    return {key: value for key, value in message.items() if key != "role"}


def _spelled_out(message: Message) -> Message:
    """The message with its tool calls as text, behind what it says."""
    if not message.get("tool_calls"):
        return message
    called = json.dumps(message["tool_calls"], ensure_ascii=False)
    said = str(message.get("content") or "")
    rest = {name: value for name, value in message.items() if name != "tool_calls"}
    return {**rest, "content": f"{said}\n{called}" if said.strip() else called}
