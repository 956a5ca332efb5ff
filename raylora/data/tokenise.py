"""Prompts and responses as token ids: runs in Ray's workers, so the driver needs no transformers."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from raylora.errors import UserError

if TYPE_CHECKING:
    import pyarrow as pa
    import ray
    from transformers import PreTrainedTokenizerBase

_WEIGHT_SUFFIXES = {".safetensors", ".bin", ".pt", ".pth", ".gguf", ".h5", ".msgpack", ".onnx", ".ot"}


def schema() -> pa.Schema:
    """Columns of a tokenised table: `row` is the index in the source split, `response_ids` ends with EOS."""
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
    """The rows `prompt, response, answer, metadata` (strings) with the token ids that a trial trains on."""
    import pyarrow as pa

    raw = {name: table.column(name).to_pylist() for name in ("prompt", "response", "answer", "metadata")}
    prompts: list[str] = []
    prompt_ids: list[list[int]] = []
    response_ids: list[list[int]] = []
    if table.num_rows:
        prompts, prompt_ids, response_ids = encode(
            _tokenizer(files), raw["prompt"], raw["response"], system=system, chat_template=chat_template
        )
    columns = {**raw, "prompt": prompts, "prompt_ids": prompt_ids, "response_ids": response_ids}
    wanted = schema().remove(0)  # rows are numbered when all blocks are there
    return pa.table({name: columns[name] for name in wanted.names}, schema=wanted)
