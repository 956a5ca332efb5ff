"""A tuned model in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raylora.spec import Spec
from trainables.classifier import ClassifierHead
from trainables.heads import LANGUAGE, Head

if TYPE_CHECKING:
    from torch import nn


@dataclass
class TunedModel:
    """A base model with the found adapter over it, and its tokenizer; unpacks into the two.

    Attributes:
        model: for PEFT's adapters a `peft.PeftModel`, for variants that tune whole matrices the model itself; in
            evaluation mode.
        tokenizer: of the base.
        spec: of the run: how prompts are put to the model.
        max_new_tokens: longest answer, tokens.
        head: what the model answers with.

    Example:
        >>> tuned = raylora.open_run("runs/sums").load()
        >>> isinstance(tuned.answer("2 + 2 = ?"), str)
        True
    """

    model: nn.Module
    tokenizer: Any
    spec: Spec
    max_new_tokens: int
    head: Head = LANGUAGE

    def __iter__(self) -> Iterator[Any]:
        return iter((self.model, self.tokenizer))

    def answer(self, prompts: str | Sequence[str | tuple[str, str]], *, max_new_tokens: int | None = None) -> Any:
        """Greedy answers to prompts, put to the model as in training: system message and chat template of the spec.

        With a classification head, the labels of texts; a pair of texts is a tuple of two.

        Args:
            prompts: one prompt, or several.
            max_new_tokens: longest answer; default: the spec's.

        Returns:
            The answer, or a list of answers.

        Example:
            >>> tuned = raylora.open_run("runs/sums").load()
            >>> answers = tuned.answer(["2 + 2 = ?", "3 + 4 = ?"], max_new_tokens=4)
            >>> len(answers), answers[0] == tuned.answer("2 + 2 = ?", max_new_tokens=4)
            (2, True)
        """
        from raylora.data.tokenise import encode

        if isinstance(self.head, ClassifierHead):
            return self._classified(prompts, self.head)
        several: Any = [prompts] if isinstance(prompts, str) else list(prompts)
        task = self.spec.task
        _, prompt_ids, _ = encode(
            self.tokenizer, several, [""] * len(several), system=task.system, chat_template=task.chat_template
        )
        answers = [self._continue(ids, max_new_tokens or self.max_new_tokens) for ids in prompt_ids]
        return answers[0] if isinstance(prompts, str) else answers

    def _classified(self, texts: str | Sequence[str | tuple[str, str]], head: ClassifierHead) -> Any:
        import torch

        from raylora.data.texts import TextEncoder
        from raylora.data.tokens import Tokenising, Tokens
        from trainables.evaluation import pad_token

        encoder = TextEncoder(self.tokenizer, Tokenising(control_tokens=self.spec.task.control_tokens, texts=True))
        several = [texts] if isinstance(texts, str) else list(texts)
        found = []
        for one in several:
            tokens = encoder.tokens([one] if isinstance(one, str) else list(one))
            assert isinstance(tokens, Tokens)  # nothing bounds them
            row = {"prompt_ids": tokens.prompt_ids, "prompt_trained": tokens.trained, "answer": "0"}
            batch = head.collate([row], pad_token(self.tokenizer)).to(next(self.model.parameters()).device)
            with torch.inference_mode():
                found.append(head.text(self.model(**batch.inputs).logits[0].tolist()))
        return found[0] if isinstance(texts, str) else found

    def _continue(self, ids: Sequence[int], longest: int) -> str:
        import torch

        from trainables.evaluation import end_tokens, pad_token

        model: Any = self.model
        given = torch.tensor([list(ids)], device=next(model.parameters()).device)  # (1, prompt)
        with torch.inference_mode():
            out = model.generate(
                input_ids=given,
                attention_mask=torch.ones_like(given),
                max_new_tokens=longest,
                do_sample=False,
                eos_token_id=end_tokens(model, self.tokenizer),
                pad_token_id=pad_token(self.tokenizer),
            )
        return self.tokenizer.decode(out[0, given.shape[1] :], skip_special_tokens=True)


def load_tuned(spec: Spec, adapter: Path, device: str = "auto", head: Head = LANGUAGE) -> TunedModel:
    """The spec's base model in its dtype and quantisation, with this head and the adapter of that folder over it.

    Raises:
        UserError: The base model cannot be had.
    """
    from raylora.build import build_task
    from raylora.models import resolve
    from raylora.run.quantized import laid_over
    from trainables.session import load_model
    from trainables.variants.core.export import merge_folder

    native = (adapter / "adapter_config.json").is_file()
    # Whole matrices take the place of the base's.
    quantization = laid_over(spec, adapter.parent) if native else "none"
    loaded, tokenizer = load_model(resolve(spec.model), spec.dtype, device, head=head, quantization=quantization)
    model: Any = loaded
    if native:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, str(adapter))
    else:
        model = merge_folder(model, adapter)
    return TunedModel(model.eval(), tokenizer, spec, build_task(spec).max_new_tokens, head)
