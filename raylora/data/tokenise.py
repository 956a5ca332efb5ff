"""Prompts and responses as token ids: runs in Ray's workers, so the driver needs no transformers."""

from __future__ import annotations

import json
import os
import re
import tempfile
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from raylora.data.ids import TextIds, ids_of
from raylora.data.problems import BEYOND_POSITIONS, EMPTY_RESPONSE, NO_PROMPT, NULL_RESPONSE, REFUSED
from raylora.data.rendering import CLOSE, OPEN, Refused, Renderer, unmarked
from raylora.data.texts import TextEncoder
from raylora.data.tokens import Tokenising, Tokens
from raylora.errors import UserError

if TYPE_CHECKING:
    import pyarrow as pa
    import ray
    from transformers import PreTrainedTokenizerBase

# Model types whose places are counted from behind that of the padding token.
_OFFSET_BY_PADDING = frozenset(
    {"camembert", "data2vec-text", "ibert", "longformer", "mpnet", "roberta", "roberta-prelayernorm"}
    | {"xlm-roberta", "xlm-roberta-xl", "xmod"}
)
_WEIGHT_SUFFIXES = {".safetensors", ".bin", ".pt", ".pth", ".gguf", ".h5", ".msgpack", ".onnx", ".ot"}


def schema() -> pa.Schema:
    """Columns of a tokenised table.

    `row` is the index in the source split. `response_ids` ends with the token that ends a turn. `prompt_trained`
    holds the spans within `prompt_ids` that are trained on too, as `start, end, start, end, ...`: the assistant's
    earlier turns; it is empty where there is one turn. (Of texts to classify, which have no `response_ids`: the
    second text, where the tokenizer tells it apart.) A row with a `problem` (see `raylora.data.problems`) cannot be
    used: it has no ids, and whoever splits the rows drops and counts it, naming `source_file` and `source_row`.
    """
    import pyarrow as pa

    ids = pa.list_(pa.int32())
    return pa.schema(
        [
            ("row", pa.int64()),
            ("prompt", pa.string()),  # as rendered by the chat template
            ("response", pa.string()),
            ("answer", pa.string()),
            ("metadata", pa.string()),  # JSON
            ("prompt_ids", ids),
            ("response_ids", ids),
            ("prompt_trained", ids),
            ("problem", pa.string()),
            ("source_file", pa.string()),
            ("source_row", pa.int64()),
        ]
    )


def tokenizer_files(folder: Path) -> dict[str, bytes]:
    """The small files of a model folder by name: the worker may be on a node that has no such folder."""
    return {
        path.name: path.read_bytes()
        for path in sorted(folder.iterdir())
        if path.is_file() and path.suffix not in _WEIGHT_SUFFIXES and ".safetensors" not in path.name
    }


@lru_cache(maxsize=2)
def _tokenizer(files: ray.ObjectRef) -> PreTrainedTokenizerBase:
    import ray
    from transformers import AutoTokenizer

    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # a task has one core
    with tempfile.TemporaryDirectory(prefix="raylora-tokenizer-") as folder:
        for name, content in ray.get(files).items():
            (Path(folder) / name).write_bytes(content)
        return AutoTokenizer.from_pretrained(folder)


@dataclass(frozen=True)
class _Draft:
    """A row as texts to encode, each on its own, and what makes tokens of their ids."""

    texts: Sequence[str]
    finish: Callable[[Sequence[array[int]]], Tokens]


class Encoder:
    """Rows to tokens for one tokenizer.

    Raises:
        UserError: see `rendering.Renderer`.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, how: Tokenising) -> None:
        self.tokenizer, self.how = tokenizer, how
        self.renderer = Renderer(
            tokenizer, system=how.system, chat_template=how.chat_template, control_tokens=how.control_tokens
        )
        self._text_ids = TextIds(tokenizer)

    def encode(
        self,
        prompts: Sequence[str],
        responses: Sequence[str],
        conversations: Sequence[str | None] | None = None,
        metadata: Sequence[str | None] | None = None,
    ) -> list[Tokens | str]:
        """Tokens of each row, or the problem that it has.

        The response is tokenised on its own, so that where training starts is exactly where generation starts, and
        ends with the token that ends a turn. So is each earlier turn of the assistant.
        """
        drafts = self._drafts(prompts, responses, conversations or [None] * len(prompts))
        ids = iter(self._ids([text for draft in drafts if isinstance(draft, _Draft) for text in draft.texts]))
        return [
            self._fitted(draft.finish([next(ids) for _ in draft.texts])) if isinstance(draft, _Draft) else draft
            for draft in drafts
        ]

    def _drafts(
        self, prompts: Sequence[str], responses: Sequence[str], conversations: Sequence[str | None]
    ) -> list[_Draft | str]:
        drafts: list[_Draft | str] = [""] * len(prompts)
        single = []
        for at, conversation in enumerate(conversations):
            about = None if conversation is None else json.loads(conversation)
            if about is None and self._reasons(responses[at]):
                about = {"messages": _question(prompts[at], responses[at])}
            if about is None:
                single.append(at)
            elif about.get("text"):
                drafts[at] = self._text(responses[at])
            else:
                drafts[at] = self._conversation(about["messages"], about.get("tools"))
        if single:
            pairs = self._pairs([prompts[at] for at in single], [responses[at] for at in single])
            for at, draft in zip(single, pairs, strict=True):
                drafts[at] = draft
        return drafts

    def _reasons(self, response: str) -> bool:
        """Whether the template has to take reasoning apart from the answer."""
        return self.renderer.thinks and "</think>" in response

    def _pairs(self, prompts: Sequence[str], responses: Sequence[str]) -> Sequence[_Draft | str]:
        renderer, turn = self.renderer, self.renderer.turn
        asked, said = [renderer.mark(text) for text in prompts], [renderer.mark(text) for text in responses]
        if renderer.chat and not turn.plain:
            return [self._conversation(_question(a, s)) for a, s in zip(prompts, responses, strict=True)]
        if renderer.chat:
            texts = renderer.prompts(asked)
            answers = [turn.around(text) for text in said]
        else:
            texts = [f"{renderer.system}\n\n{text}" for text in asked] if renderer.system else asked
            answers = [a if not t or t[-1].isspace() else f" {a}" for t, a in zip(texts, said, strict=True)]
        return [
            _Draft((text, answer), partial(self._pair, unmarked(text)))
            for text, answer in zip(texts, answers, strict=True)
        ]

    def _pair(self, prompt: str, ids: Sequence[array[int]]) -> Tokens:
        # A model must be given at least one token to go on from.
        asked = self._begin + ids[0] or self._eos
        return Tokens(prompt, asked, ids[1] + self._end)

    @cached_property
    def _eos(self) -> array[int]:
        return ids_of([self.tokenizer.eos_token_id])

    @cached_property
    def _end(self) -> array[int]:
        return ids_of([self.renderer.end_id])

    @cached_property
    def _own_begin(self) -> array[int]:
        """The token before a text, where the tokenizer itself adds one."""
        bos = self.tokenizer.bos_token_id
        return ids_of([bos] if bos is not None and list(self.tokenizer("")["input_ids"][:1]) == [bos] else [])

    @cached_property
    def _begin(self) -> array[int]:
        """What a text without a chat template begins with."""
        return ids_of() if self.renderer.chat else self._own_begin

    def _text(self, text: str) -> _Draft:
        """Plain text: all of it is trained on."""
        return _Draft([text if self.how.control_tokens is not False else self.renderer.mark(text)], self._whole)

    def _whole(self, ids: Sequence[array[int]]) -> Tokens:
        (said,) = ids
        begin = self._own_begin
        said = said[1:] if begin and said[:1] == begin else said
        return Tokens("", begin or self._eos, said if said[-1:] == self._eos else said + self._eos)

    def _conversation(self, messages: Sequence[dict[str, Any]], tools: Any = None) -> _Draft | str:
        try:
            rendered = self.renderer.conversation(messages, tools)
        except Refused as error:
            return f"{REFUSED}: {error}"
        pieces, at = [], 0
        for start, end in rendered.spans:
            pieces += [rendered.text[at:start], rendered.text[start:end]]
            at = end
        return _Draft(pieces, partial(self._turns, unmarked(rendered.text[: rendered.spans[-1][0]])))

    def _turns(self, prompt: str, ids: Sequence[array[int]]) -> Tokens:
        """Of context and assistant turns, in turns."""
        prompt_ids, trained = self._begin[:], []
        for context, said in zip(ids[:-2:2], ids[1:-2:2], strict=True):
            prompt_ids += context
            start = max(1, len(prompt_ids))
            prompt_ids += said
            if self.how.train_on == "all" and len(prompt_ids) > start:
                trained += [start, len(prompt_ids)]
        prompt_ids += ids[-2]
        return Tokens(prompt, prompt_ids or self._eos, ids[-1], trained)

    def _ids(self, texts: Sequence[str]) -> list[array[int]]:
        """Token ids of each text; what is marked is no control token."""
        plain = iter(self._text_ids([text for text in texts if OPEN not in text]))
        return [self._marked_ids(text) if OPEN in text else next(plain) for text in texts]

    def _marked_ids(self, text: str) -> array[int]:
        """The control tokens outside the marks cut the text; what lies between them is encoded without any."""
        ids = ids_of()
        cut = re.compile(f"{OPEN}.*?{CLOSE}|({'|'.join(map(re.escape, self.renderer.specials))})", re.DOTALL)
        at = 0
        for found in cut.finditer(text):
            if found.group(1) is not None:
                ids += self._text_ids.ordinary(unmarked(text[at : found.start()]))
                ids.append(self.tokenizer.convert_tokens_to_ids(found.group(1)))
                at = found.end()
        return ids + self._text_ids.ordinary(unmarked(text[at:]))

    def _fitted(self, tokens: Tokens) -> Tokens | str:
        """Cut to `max_length` where that is asked for; a problem beyond the model's positions."""
        how = self.how
        prompt, response = len(tokens.prompt_ids), len(tokens.response_ids)
        if how.max_length is not None and prompt + response > how.max_length:
            if how.truncate == "left":
                room = how.max_length - max(response, how.max_new_tokens)
                if room >= 1:
                    tokens = _cut_left(tokens, prompt - room)
            elif how.truncate == "right" and how.max_length - prompt >= 1:
                tokens = replace(tokens, response_ids=tokens.response_ids[: how.max_length - prompt])
        if how.positions is not None and len(tokens.prompt_ids) + len(tokens.response_ids) > how.positions:
            return BEYOND_POSITIONS
        return tokens


def _cut_left(tokens: Tokens, count: int) -> Tokens:
    """Without the first `count` tokens of the prompt; at least one token before what is trained on stays."""
    if count <= 0:
        return tokens
    spans = zip(tokens.trained[::2], tokens.trained[1::2], strict=True)
    kept = [(max(1, start - count), end - count) for start, end in spans]
    trained = [bound for start, end in kept if end > start for bound in (start, end)]
    return replace(tokens, prompt_ids=tokens.prompt_ids[count:], trained=trained)


def _question(prompt: str, response: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": prompt}, {"role": "assistant", "content": response}]


def encode(
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    responses: Sequence[str],
    *,
    system: str | None = None,
    chat_template: bool = True,
) -> tuple[list[str], list[list[int]], list[list[int]]]:
    """Rendered prompts, their token ids, and the token ids of the responses.

    With a chat template the prompt is the rendered conversation (the system message, if any, may be empty) up
    to where the assistant begins. Without one, or with `chat_template=False`, it is the system text and the
    prompt as they are, after a BOS token if the tokenizer adds one by itself, and the response is set off by
    a space.

    Raises:
        UserError: a row that the template refuses, and what `Encoder` raises.
    """
    how = Tokenising(system=system, chat_template=chat_template)
    done = Encoder(tokenizer, how).encode(prompts, responses)
    for tokens in done:
        if isinstance(tokens, str):
            told = f"a row cannot be encoded: {tokens}; give other rows, or set task.chat_template to false"
            raise UserError(told, field="task.chat_template", value=chat_template, allowed=False)
    rows = [tokens for tokens in done if isinstance(tokens, Tokens)]
    return (
        [row.prompt for row in rows],
        [row.prompt_ids.tolist() for row in rows],
        [row.response_ids.tolist() for row in rows],
    )


@lru_cache(maxsize=2)
def _encoder(files: ray.ObjectRef, how: Tokenising) -> Encoder | TextEncoder:
    return make_encoder(_tokenizer(files), how)


def make_encoder(tokenizer: PreTrainedTokenizerBase, how: Tokenising) -> Encoder | TextEncoder:
    """What makes tokens of rows in this way."""
    return TextEncoder(tokenizer, how) if how.texts else Encoder(tokenizer, how)


def tokenise(table: pa.Table, *, files: ray.ObjectRef, how: Tokenising) -> pa.Table:
    """Normalised rows (see `raylora.data.rows`) -> a table of `schema`, but for `row`.

    Rows are numbered when all are there. Every row comes back, in its place; those that cannot be used have a
    `problem` and no ids.
    """
    return tokenise_with(table, lambda: _encoder(files, how))


def tokenise_with(table: pa.Table, make: Callable[[], Encoder | TextEncoder]) -> pa.Table:
    """As `tokenise`, with an encoder that is asked for where there is a row to encode."""
    import pyarrow as pa

    count, kept = table.num_rows, schema().remove(0)
    given = {name: table.column(name) for name in table.schema.names}

    def column(name: str) -> list[Any]:
        return given[name].to_pylist() if name in given else [None] * count

    names = ("prompt", "response", "conversation", "metadata", "problem")
    prompts, responses, conversations, metadata, problems = map(column, names)
    for at, problem in enumerate(problems):
        problems[at] = problem or problem_of(prompts[at], responses[at])
    usable = [at for at, problem in enumerate(problems) if problem is None]
    done: list[Tokens] = [_NOTHING] * count
    if usable:
        given_rows = ([column[at] for at in usable] for column in (prompts, responses, conversations, metadata))
        for at, tokens in zip(usable, make().encode(*given_rows), strict=True):
            if isinstance(tokens, str):
                problems[at] = tokens
            else:
                done[at], prompts[at] = tokens, tokens.prompt
    columns = {name: given.get(name, pa.nulls(count)) for name in kept.names}
    columns |= {
        "prompt": pa.array(prompts, pa.string()),
        "prompt_ids": _lists([tokens.prompt_ids for tokens in done]),
        "response_ids": _lists([tokens.response_ids for tokens in done]),
        "prompt_trained": _lists([ids_of(tokens.trained) for tokens in done]),
        "problem": pa.array(problems, pa.string()),
    }
    return pa.table(columns).cast(kept)


_NOTHING = Tokens("", ids_of(), ids_of())


def _lists(rows: Sequence[array[int]]) -> pa.ListArray:
    """A column of lists of token ids."""
    import pyarrow as pa

    ends = np.cumsum([0, *map(len, rows)], dtype=np.int32)
    values = pa.Array.from_buffers(pa.int32(), int(ends[-1]), [None, pa.py_buffer(b"".join(rows))])
    return pa.ListArray.from_arrays(pa.array(ends), values)


def problem_of(prompt: str | None, response: str | None) -> str | None:
    """Why a prompt and its response cannot be learned from, or None."""
    if prompt is None:
        return NO_PROMPT
    if response is None:
        return NULL_RESPONSE
    return EMPTY_RESPONSE if not response.strip() else None


def model_positions(files: Mapping[str, bytes]) -> int | None:
    """How many positions a model has, by the `config.json` among its files; None where that does not say."""
    try:
        config = json.loads(files.get("config.json", b"{}"))
    except ValueError:
        return None
    config = {**config, **(config.get("text_config") or {})}
    found = next(
        (config[name] for name in ("max_position_embeddings", "n_positions", "n_ctx") if config.get(name)), None
    )
    if not isinstance(found, int) or found <= 0:
        return None
    return found - config.get("pad_token_id", 1) - 1 if config.get("model_type") in _OFFSET_BY_PADDING else found
