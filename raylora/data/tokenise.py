"""Prompts and responses as token ids: runs in Ray's workers, so the driver needs no transformers."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raylora.data.problems import EMPTY_RESPONSE, NO_PROMPT, NULL_RESPONSE
from raylora.errors import UserError

if TYPE_CHECKING:
    import pyarrow as pa
    import ray
    from transformers import PreTrainedTokenizerBase

_WEIGHT_SUFFIXES = {".safetensors", ".bin", ".pt", ".pth", ".gguf", ".h5", ".msgpack", ".onnx", ".ot"}


def schema() -> pa.Schema:
    """Columns of a tokenised table.

    `row` is the index in the source split. `response_ids` ends with the token that ends a turn. `prompt_trained`
    holds the spans within `prompt_ids` that are trained on too, as `start, end, start, end, ...`: the assistant's
    earlier turns; it is empty where there is one turn. A row with a `problem` (see `raylora.data.problems`) cannot be
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

    with tempfile.TemporaryDirectory(prefix="raylora-tokenizer-") as folder:
        for name, content in ray.get(files).items():
            (Path(folder) / name).write_bytes(content)
        return AutoTokenizer.from_pretrained(folder)


def _render(
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    responses: Sequence[str],
    system: str | None,
    chat: bool,
) -> tuple[list[str], list[str]]:
    """Prompt and response texts whose concatenation is what the model reads."""
    if chat and tokenizer.chat_template:
        from jinja2.exceptions import TemplateError

        head = [] if system is None else [{"role": "system", "content": system}]
        chats = [[*head, {"role": "user", "content": prompt}] for prompt in prompts]
        try:
            rendered = tokenizer.apply_chat_template(chats, tokenize=False, add_generation_prompt=True)
        except TemplateError as error:
            raise UserError(
                f"task.system: the model's chat template refuses the message ({error}); set task.system to "
                "null or task.chat_template to false"
            ) from error
        return list(rendered), list(responses)
    if system:
        prompts = [f"{system}\n\n{prompt}" for prompt in prompts]
    spaced = [
        response if not prompt or prompt[-1].isspace() else f" {response}"
        for prompt, response in zip(prompts, responses, strict=True)
    ]
    return list(prompts), spaced


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
    a space. The response is tokenised on its own, so that where training starts is exactly where generation
    starts, and ends with the EOS token.
    """
    if tokenizer.eos_token_id is None:
        raise UserError("model: its tokenizer has no end-of-sequence token; set eos_token in tokenizer_config.json")
    prompts, texts = _render(tokenizer, prompts, responses, system, chat_template)
    begin: list[int] = []
    if not (chat_template and tokenizer.chat_template) and tokenizer.bos_token_id is not None:
        begin = list(tokenizer("")["input_ids"][:1])
        begin = begin if begin == [tokenizer.bos_token_id] else []
    eos = tokenizer.eos_token_id
    # A model must be given at least one token to go on from.
    prompt_ids = [[*begin, *ids] or [eos] for ids in tokenizer(prompts, add_special_tokens=False)["input_ids"]]
    response_ids = [[*ids, eos] for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]]
    return prompts, prompt_ids, response_ids


def tokenise(table: pa.Table, *, files: ray.ObjectRef, system: str | None, chat_template: bool) -> pa.Table:
    """Normalised rows (see `raylora.data.rows`) -> a table of `schema`, but for `row`.

    Rows are numbered when all are there. Every row comes back, in its place; those that cannot be used have a
    `problem` and no ids.
    """
    import pyarrow as pa

    given = table.schema.names
    raw = {name: table.column(name).to_pylist() for name in ("prompt", "response", "answer", "metadata")}
    problems = [problem_of(prompt, response) for prompt, response in zip(raw["prompt"], raw["response"], strict=True)]
    if "problem" in given:
        problems = [
            earlier or found for earlier, found in zip(table.column("problem").to_pylist(), problems, strict=True)
        ]
    usable = [index for index, problem in enumerate(problems) if problem is None]
    columns: dict[str, list[Any]] = {name: list(values) for name, values in raw.items()}
    columns["prompt_ids"], columns["response_ids"], columns["prompt_trained"] = ([[] for _ in problems] for _ in "123")
    if usable:
        prompts, prompt_ids, response_ids = encode(
            _tokenizer(files),
            [raw["prompt"][index] for index in usable],
            [raw["response"][index] for index in usable],
            system=system,
            chat_template=chat_template,
        )
        for place, index in enumerate(usable):
            columns["prompt"][index] = prompts[place]
            columns["prompt_ids"][index] = prompt_ids[place]
            columns["response_ids"][index] = response_ids[place]
    columns["problem"] = problems
    for name in ("source_file", "source_row"):
        columns[name] = table.column(name).to_pylist() if name in given else [None] * table.num_rows
    wanted = schema().remove(0)
    return pa.table({name: columns[name] for name in wanted.names}, schema=wanted)


def problem_of(prompt: str | None, response: str | None) -> str | None:
    """Why a prompt and its response cannot be learned from, or None."""
    if prompt is None:
        return NO_PROMPT
    if response is None:
        return NULL_RESPONSE
    return EMPTY_RESPONSE if not response.strip() else None
