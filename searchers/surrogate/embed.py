"""Hidden state of a frozen causal language model at a learnable token that follows a prompt.

A prompt is `[prefix, the same for all] [values of one configuration] [learnable token]`. In a causal model the keys and
values of the first two parts do not depend on the token, and those of the prefix not on the values, so

1. the prefix is run once,
2. the values of a configuration are run once over the prefix, and only their keys and values are kept,
3. the token is run as one position over both; gradients reach the token through this position alone.

The prefix is never copied per configuration: the attention below reads the one copy for the whole batch. With explicit
position ids this gives the numbers of whole prompts, to rounding. Models for which it does not (sliding windows shorter
than the prompt, attention of another form) are found by comparing one prompt at start; they run whole prompts instead.

| symbol | meaning                                | shape                   |
|--------|----------------------------------------|-------------------------|
| B      | configurations in a batch              |                         |
| P      | tokens in the prefix                   |                         |
| S      | tokens in the values, padded right     |                         |
| L, K, G, D | layers, key-value heads, query heads per key-value head, head size |  |
| kv     | keys and values of one configuration   | (L, 2, K, S, D)         |
"""

from __future__ import annotations

import copy
import logging
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

logger = logging.getLogger(__name__)

_ATTENTION = "raylora_shared_prefix"
# Up to this size a second, float32 copy of the weights is kept for the token's position.
_PRECISE_PARAMETERS = 2_000_000_000


@dataclass
class _Step:
    """What the attention of the forward call in progress has to look at besides its own positions."""

    prefix: list[tuple[Tensor, Tensor]] | None = None  # per layer (K, P, D) twice
    values: Tensor | None = None  # (B, L, 2, K, S, D)
    valid: Tensor | None = None  # (B, S) bool
    made: dict[int, tuple[Tensor, Tensor]] | None = None  # per layer (B, K, T, D) twice


_step: _Step | None = None


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention over shared prefix, own values and own causal positions, in one softmax.

    Args:
        query: `(B, K G, T, D)`; key, value: `(B, K, T, D)`, already rotated.

    Returns:
        `(B, T, K G, D)`.
    """
    assert _step is not None, "the shared-prefix attention runs only inside PromptEmbedder"
    layer: int = module.layer_idx  # type: ignore[assignment]
    if _step.made is not None:
        _step.made[layer] = (key.detach(), value.detach())
    b, heads, t, d = query.shape
    k = key.shape[1]
    g = heads // k
    scale = d**-0.5 if scaling is None else scaling
    if kwargs.get("s_aux") is not None:
        raise ValueError("attention sinks are not supported")
    softcap = kwargs.get("softcap")

    def logits(raw: Tensor) -> Tensor:
        return raw if softcap is None else torch.tanh(raw / softcap) * softcap

    q = query.reshape(b, k, g * t, d) * scale  # query head h reads key-value head h // G

    scores: list[Tensor] = []
    readers: list[Callable[..., Tensor]] = []
    if _step.prefix is not None:
        keys, vals = _step.prefix[layer]
        p = keys.shape[1]
        folded = q.transpose(0, 1).reshape(k, b * g * t, d)
        scores.append(logits(folded @ keys.transpose(1, 2)).view(k, b, g * t, p).transpose(0, 1))

        def read_prefix(w: Tensor, vals: Tensor = vals, p: int = p) -> Tensor:
            w = w.transpose(0, 1).reshape(k, b * g * t, p)
            return (w @ vals).view(k, b, g * t, -1).transpose(0, 1)

        readers.append(read_prefix)
    if _step.values is not None:
        keys, vals = _step.values[:, layer, 0], _step.values[:, layer, 1]
        assert _step.valid is not None
        own = logits(q @ keys.transpose(2, 3))
        scores.append(own.masked_fill(~_step.valid[:, None, None, :], float("-inf")))
        readers.append(lambda w, vals=vals: w @ vals)
    causal = torch.ones(t, t, dtype=torch.bool, device=q.device).tril().repeat(g, 1)  # rows (G, T)
    scores.append(logits(q @ key.transpose(2, 3)).masked_fill(~causal, float("-inf")))
    readers.append(lambda w: w @ value)

    weights = torch.cat(scores, dim=-1).softmax(dim=-1, dtype=torch.float32).to(query.dtype)
    out: Tensor | None = None
    for part, read in zip(weights.split([s.shape[-1] for s in scores], dim=-1), readers, strict=True):
        out = read(part) if out is None else out + read(part)
    assert out is not None
    return out.reshape(b, heads, t, -1).transpose(1, 2).contiguous(), None


def pick_device(device: str, num_gpus: float) -> str:
    """`auto` is CUDA where a share of a GPU was asked for and is there, else the CPU."""
    if device != "auto":
        return device
    return "cuda" if num_gpus > 0 and torch.cuda.is_available() else "cpu"


def pick_dtype(device: str) -> torch.dtype:
    """bfloat16 where the hardware multiplies it, else float32."""
    if device.startswith("cuda"):
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    checks = [getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")]
    return torch.bfloat16 if any(check() for check in checks if check is not None) else torch.float32


@dataclass
class Batch:
    """Configurations gathered for repeated runs of the token: their keys and values, or their whole prompts."""

    lengths: Tensor  # (B,) tokens before the token
    values: Tensor | None = None  # (B, L, 2, K, S, D)
    valid: Tensor | None = None  # (B, S)
    prompts: list[list[int]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.lengths)


class PromptEmbedder:
    """Embeds configurations; see the module's docstring for how.

    Args:
        folder: local folder of a causal language model with its tokenizer.
        prefix: the constant text; `values_of(key)` gives the text of one configuration.
        device: a torch device; dtype: for prefix and values, or None for `pick_dtype`; the token runs in float32
            except on models of more than 2e9 parameters.
        batch_tokens: most tokens in one forward call; bounds the memory of activations.
        cache_bytes: most memory kept in configurations' keys and values; the longest unused go first.
        share: False runs whole prompts always (slow; the reference).

    Raises:
        ValueError: the folder is no model, or names no causal language model with a tokenizer.
    """

    def __init__(
        self,
        folder: str | Path,
        prefix: str,
        values_of: Callable[[Any], str],
        *,
        device: str = "cpu",
        dtype: torch.dtype | None = None,
        batch_tokens: int = 2048,
        cache_bytes: int = 1 << 30,
        share: bool = True,
    ) -> None:
        from transformers import AutoModel, AutoTokenizer
        from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

        if not (Path(folder) / "config.json").is_file():
            raise ValueError(f"llm: {str(folder)!r} is no model folder (it has no config.json); give a local folder")
        ALL_ATTENTION_FUNCTIONS.register(_ATTENTION, _attend)
        self.device = torch.device(device)
        self.dtype = pick_dtype(device) if dtype is None else dtype
        self.tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        model = AutoModel.from_pretrained(folder, local_files_only=True, dtype=self.dtype)
        self.model = model.to(self.device).eval().requires_grad_(False)
        # The hidden states of one template differ by a few percent, where bfloat16 rounds half of it away: keys and
        # values bear that, the token's own position does not.
        small = sum(p.numel() for p in model.parameters()) <= _PRECISE_PARAMETERS
        self.token_dtype = torch.float32 if small else self.dtype
        self._token_model = self.model if self.token_dtype == self.dtype else copy.deepcopy(self.model).float()
        self.batch_tokens = batch_tokens
        self.cache_bytes = cache_bytes
        self._values_of = values_of
        self._embedding: nn.Module = model.get_input_embeddings()
        self.hidden_size: int = self._embedding.weight.shape[1]  # type: ignore[union-attr, assignment]
        self._cache: OrderedDict[Hashable, Tensor] = OrderedDict()
        self._cached = 0
        self._prefix_ids: list[int] = self.tokenizer(prefix)["input_ids"]
        if not self._prefix_ids:
            raise ValueError("prompt: the constant part is empty; give at least one line before the values")
        eos = self.tokenizer.eos_token_id
        if len(self._prefix_ids) > 1 and self._prefix_ids[-1] == eos:
            # Some tokenizers close every text; the prompt goes on here.
            self._prefix_ids.pop()
        self._prefix: list[tuple[Tensor, Tensor]] | None = None
        self._token_prefix: list[tuple[Tensor, Tensor]] | None = None
        self.shared = share and self._layers_are_full()
        if self.shared:
            try:
                self._run_prefix()
            except Exception as error:  # any model code may refuse a foreign attention function
                logger.warning("%s does not take a shared prefix (%s); running whole prompts", folder, error)
                self.shared = False

    # -- the public three --------------------------------------------------------------------------------------------

    def initial_token(self) -> Tensor:
        """Start of the learnable token: the mean of the input embeddings, float32, shape `(hidden,)`."""
        weight: Tensor = self._embedding.weight  # type: ignore[assignment]
        return weight.float().mean(dim=0).detach().cpu()

    def check(self, key: Any) -> float:
        """Compares one configuration with its whole prompt; switches sharing off when they differ.

        Returns:
            The largest difference relative to the largest activation.
        """
        if not self.shared:
            return 0.0
        token = self.initial_token()
        with torch.no_grad():
            whole = self._whole([self._prompt(key)], token)
            fast = self.run_token(self.gather([key]), token)
        error = float((whole - fast).abs().max() / whole.abs().max().clamp_min(1e-12))
        # Rounding in bfloat16 is about 1e-2 through a deep model; a wrong mask or position is of order 1.
        if not error < (1e-3 if self.dtype == torch.float32 else 0.15):
            logger.warning("shared prefix differs from whole prompts by %.3g; running whole prompts (slow)", error)
            self.shared = False
            self._cache.clear()
            self._cached = 0
        return error

    def gather(self, keys: Sequence[Hashable]) -> Batch:
        """Everything that later runs of the token over these configurations need. Memory: one copy of their kv."""
        if not self.shared:
            prompts = [self._prompt(k) for k in keys]
            return Batch(torch.tensor([len(p) for p in prompts]), prompts=prompts)
        found = {k: self._cache[k] for k in keys if k in self._cache}
        missing = [k for k in dict.fromkeys(keys) if k not in found]
        for made in self._run_values(missing):
            found.update(made)
        for key in keys:
            self._keep(key, found[key])
        kv = [found[k] for k in keys]
        sizes = torch.tensor([c.shape[3] for c in kv])
        longest = int(sizes.max())
        first = kv[0]
        shape = (len(kv), *first.shape[:3], longest, first.shape[4])
        values = torch.zeros(shape, dtype=self.token_dtype, device=self.device)
        for i, one in enumerate(kv):
            values[i, :, :, :, : one.shape[3]] = one
        valid = torch.arange(longest)[None, :] < sizes[:, None]
        return Batch(sizes + len(self._prefix_ids), values, valid.to(self.device))

    def run_token(self, batch: Batch, token: Tensor) -> Tensor:
        """Hidden state at the token, float32 on the CPU, shape `(B, hidden)`; differentiable in `token` `(hidden,)`."""
        if batch.values is None:
            return self._whole(batch.prompts, token)
        embeds = token.to(self.device, self.token_dtype).expand(len(batch), 1, -1)
        hidden = self._forward_shared(
            self._token_model,
            _Step(self._token_prefix, batch.values, batch.valid),
            inputs_embeds=embeds,
            position_ids=batch.lengths[:, None].to(self.device),
        )
        return hidden[:, 0].float().cpu()

    def embed(self, keys: Sequence[Hashable], token: Tensor, chunk: int = 64) -> Tensor:
        """Hidden states of many configurations without gradients, `(n, hidden)`, `chunk` at a time."""
        parts = [keys[i : i + chunk] for i in range(0, len(keys), chunk)]
        with torch.no_grad():
            made = [self.run_token(self.gather(part), token) for part in parts]
        return torch.cat(made) if made else torch.zeros(0, self.hidden_size)

    # -- the three stages --------------------------------------------------------------------------------------------

    def _run_prefix(self) -> None:
        made: dict[int, tuple[Tensor, Tensor]] = {}
        ids = torch.tensor([self._prefix_ids], device=self.device)
        positions = torch.arange(ids.shape[1], device=self.device)[None]
        with torch.no_grad():
            self._forward_shared(self.model, _Step(made=made), input_ids=ids, position_ids=positions)
        shapes = {tensor.shape for pair in made.values() for tensor in pair}
        if len(shapes) != 1 or sorted(made) != list(range(len(made))):
            raise ValueError("its layers' keys and values have different shapes")
        self._prefix = [(made[i][0][0].contiguous(), made[i][1][0].contiguous()) for i in range(len(made))]
        self._token_prefix = [(k.to(self.token_dtype), v.to(self.token_dtype)) for k, v in self._prefix]

    def _run_values(self, keys: Sequence[Hashable]) -> Iterator[dict[Hashable, Tensor]]:
        ids = {k: self._values_ids(k) for k in keys}
        # Similar lengths together: less padding. The sort is stable, so the batches depend on `keys` alone.
        order = sorted(keys, key=lambda k: len(ids[k]))
        while order:
            size = max(1, min(len(order), self.batch_tokens // max(len(ids[order[-1]]), 1)))
            part, order = order[:size], order[size:]
            longest = max(len(ids[k]) for k in part)
            # Padded on the right: real tokens never look at what comes after them, and `valid` hides it later.
            rows = torch.tensor([ids[k] + [0] * (longest - len(ids[k])) for k in part], device=self.device)
            positions = (torch.arange(longest, device=self.device) + len(self._prefix_ids)).expand(len(part), -1)
            made: dict[int, tuple[Tensor, Tensor]] = {}
            with torch.no_grad():
                step = _Step(self._prefix, made=made)
                self._forward_shared(self.model, step, input_ids=rows, position_ids=positions)
            block = torch.stack([torch.stack(made[i]) for i in range(len(made))])  # (L, 2, B, K, S, D)
            yield {k: block[:, :, i, :, : len(ids[k])].clone() for i, k in enumerate(part)}

    def _whole(self, prompts: Sequence[list[int]], token: Tensor) -> Tensor:
        """The reference: every prompt from its first token, padded on the right, with the token at its end."""
        size = max(1, self.batch_tokens // (max(map(len, prompts)) + 1))
        parts = []
        for start in range(0, len(prompts), size):
            part = prompts[start : start + size]
            ends = torch.tensor([len(p) for p in part], device=self.device)
            width = int(ends.max()) + 1
            rows = torch.tensor([p + [0] * (width - len(p)) for p in part], device=self.device)
            at = torch.arange(width, device=self.device).expand(len(part), -1)
            is_token = (at == ends[:, None])[..., None]
            embeds = torch.where(is_token, token.to(self.device, self.dtype), self._embedding(rows))
            hidden = self._forward(inputs_embeds=embeds, position_ids=at, attention_mask=(at <= ends[:, None]).long())
            parts.append(hidden[torch.arange(len(part), device=self.device), ends].float().cpu())
        return torch.cat(parts)

    # -- small helpers -----------------------------------------------------------------------------------------------

    def _forward(self, **inputs: Any) -> Tensor:
        return self.model(use_cache=False, **inputs).last_hidden_state

    def _forward_shared(self, model: nn.Module, step: _Step, **inputs: Any) -> Tensor:
        """One forward call with the attention above instead of the model's own."""
        global _step
        config: Any = model.config
        usual = config._attn_implementation
        config._attn_implementation, _step = _ATTENTION, step
        try:
            return model(use_cache=False, **inputs).last_hidden_state
        finally:
            config._attn_implementation, _step = usual, None

    def _values_ids(self, key: Any) -> list[int]:
        ids = self.tokenizer(self._values_of(key), add_special_tokens=False)["input_ids"]
        # A space with one configuration has no values to tell; the token then follows a repeated last prefix token.
        return ids or self._prefix_ids[-1:]

    def _prompt(self, key: Any) -> list[int]:
        return self._prefix_ids + self._values_ids(key)

    def _keep(self, key: Hashable, kv: Tensor) -> None:
        if key not in self._cache:
            self._cached += kv.nbytes
            self._cache[key] = kv
        self._cache.move_to_end(key)
        while self._cached > self.cache_bytes and self._cache:
            _, dropped = self._cache.popitem(last=False)
            self._cached -= dropped.nbytes

    def _layers_are_full(self) -> bool:
        """Whether every layer attends to the whole prompt, as far as the config tells."""
        config = self.model.config.get_text_config()
        longest = len(self._prefix_ids) + 256
        window = getattr(config, "sliding_window", None)
        kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
        if kinds <= {"full_attention"} and not (window and getattr(config, "layer_types", None) is None):
            return True
        if kinds <= {"full_attention", "sliding_attention"} and (not window or window >= longest):
            return True
        logger.warning("the model's attention is not over the whole prompt; running whole prompts (slow)")
        return False
