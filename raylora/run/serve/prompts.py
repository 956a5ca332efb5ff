"""Prompts as the model was trained on them: the run's system message, its chat template, its control tokens."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from raylora.data.tokenise import Encoder
from raylora.data.tokens import Tokenising
from raylora.errors import UserError
from raylora.run.serve.requests import RequestError
from raylora.spec import Spec

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Prompts:
    """From requests to token ids.

    Args:
        spec: of the run; None for an adapter from elsewhere, whose conversations go through the template as they are.

    Raises:
        UserError: the tokenizer has no end token.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, spec: Spec | None) -> None:
        how = Tokenising()
        if spec is not None:
            task = spec.task
            how = Tokenising(task.system, task.chat_template, control_tokens=task.control_tokens)
        self.tokenizer, self.encoder = tokenizer, Encoder(tokenizer, how)

    @property
    def ends(self) -> list[int]:
        """The token that ends a turn, where it is a control token."""
        end = self.encoder.renderer.end_id
        token = self.tokenizer.added_tokens_decoder.get(end)
        return [end] if token is not None and token.special else []

    def chat(self, messages: Sequence[dict[str, Any]]) -> list[int]:
        """A conversation up to where the next turn of the assistant begins, the same ids as those of a row.

        Raises:
            RequestError: the chat template refuses it.
        """
        rows: tuple[list[str], list[str], list[str | None]]
        if len(messages) == 1 and messages[0]["role"] == "user":
            rows = [messages[0]["content"]], [""], [None]
        else:
            asked = {"messages": [*messages, {"role": "assistant", "content": ""}]}
            rows = [""], [""], [json.dumps(asked)]
        try:
            found = self.encoder.encode(*rows)[0]
        except UserError as error:
            raise RequestError(f"messages: {error}", param="messages") from None
        if isinstance(found, str):
            raise RequestError(f"messages: {found}", param="messages")
        return list(found.prompt_ids)

    def text(self, prompt: str | Sequence[int]) -> list[int]:
        """A prompt as it is, with the tokens that the tokenizer itself puts before a text; ids as they are.

        Raises:
            RequestError: an id that the model has no token for.
        """
        if isinstance(prompt, str):
            ids: list[int] = list(self.tokenizer(prompt)["input_ids"])
            # Some tokenizers end every text, which a prompt is not.
            if len(ids) > 1 and ids[-1] == self.tokenizer.eos_token_id and not prompt.endswith(self._eos):
                ids.pop()
            return ids or [int(self.tokenizer.eos_token_id)]
        wrong = next((number for number in prompt if not 0 <= number < len(self.tokenizer)), None)
        if wrong is not None or not prompt:
            told = "no token ids" if wrong is None else f"{wrong} is no token of the model"
            raise RequestError(f"prompt: {told}; allowed: 0 to {len(self.tokenizer) - 1}", param="prompt")
        return list(prompt)

    @property
    def _eos(self) -> str:
        return str(self.tokenizer.eos_token)
