"""Prompts run whole: the reference for those that share their beginnings, and the only way for some models."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from .model import FrozenModel, Progress


class Whole:
    """Prompts that are run from their first token each time: the reference, and the only way for some models."""

    kept = 0.0

    def __init__(self, reader: FrozenModel, prompts: Sequence[Sequence[int]], batch_tokens: int = 2048) -> None:
        self.reader = reader
        self.prompts = [[*reader.prefix_ids, *prompt] for prompt in prompts]
        self.batch_tokens = batch_tokens

    def __len__(self) -> int:
        return len(self.prompts)

    def run(self, token: Tensor, progress: Progress | None = None) -> Tensor:
        """As `Reading.run`. Prompts are padded on the right, with the token at their end."""
        reader = self.reader
        order = sorted(range(len(self.prompts)), key=lambda i: -len(self.prompts[i]))
        parts: list[Tensor] = []
        rows: list[int] = []
        while order:
            size = max(1, self.batch_tokens // (len(self.prompts[order[0]]) + 1))
            now, order = order[:size], order[size:]
            part = [self.prompts[i] for i in now]
            ends = torch.tensor([len(p) for p in part], device=reader.device)
            width = int(ends.max()) + 1
            ids = torch.tensor([p + [0] * (width - len(p)) for p in part], device=reader.device)
            at = torch.arange(width, device=reader.device).expand(len(part), -1)
            is_token = (at == ends[:, None])[..., None]
            embedded = reader.token_model.get_input_embeddings()(ids)
            embeds = torch.where(is_token, token.to(reader.device, reader.token_dtype), embedded)
            extra = {"position_ids": at, "use_cache": False} if reader.causal else {}
            hidden = reader.token_model(
                inputs_embeds=embeds, attention_mask=(at <= ends[:, None]).long(), **extra
            ).last_hidden_state
            parts.append(hidden[torch.arange(len(part), device=reader.device), ends].float().cpu())
            rows.extend(now)
            if progress is not None:
                progress(len(rows), len(self))
        return torch.cat(parts)[torch.from_numpy(np.argsort(np.array(rows), kind="stable"))]
