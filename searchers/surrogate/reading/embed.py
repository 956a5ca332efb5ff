"""Hidden state of a frozen language model at a learnable token that follows a prompt, for many prompts at once.

A prompt is `[prefix, the same for all] [values of one configuration] [learnable token]`. In a causal model the keys and
values of the first two parts depend neither on the token nor on other prompts, so

1. the prefix is read once;
2. the values are read once, as a tree in which prompts share their beginnings (`tree.PromptTree`): a `Reading`;
3. the token is one more position behind each prompt; gradients reach it through this position alone.

With explicit positions and masks (`attention.py`) these are the numbers of whole prompts, to rounding. Models for which
they are not (bidirectional encoders, windows shorter than the prompt, attention of another form) are told apart, by
their configuration and by comparing one prompt at the start; they run whole prompts (`Whole`), a great deal slower.

| symbol     | meaning                                        | shape                   |
|------------|------------------------------------------------|-------------------------|
| n          | prompts of a reading                           |                         |
| L, K, D    | layers, key-value heads, head size             |                         |
| G, U, M, C | blocks of a group, their stem, own nodes, prompts (padded to the largest) |  |
| own        | keys and values of a group's own nodes         | (L, 2, G, K, M, D)      |
| table      | the same for all nodes of stems, one each      | (N, L, 2, K, D)         |
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .attention import NAME, Context, attend, attending
from .cache import DiskCache
from .tree import Block, PromptTree

logger = logging.getLogger(__name__)

# Positions in one forward call: enough for the matrix products to run at full speed, few enough for the caches.
_POSITIONS = 2048

Progress = Callable[[int, int], None]


def pick_device(device: str, num_gpus: float) -> str:
    """`auto` is CUDA where a share of a GPU was asked for and is there, else the CPU."""
    if device != "auto":
        return device
    return "cuda" if num_gpus > 0 and torch.cuda.is_available() else "cpu"


def inference_dtype(device: str) -> torch.dtype:
    """bfloat16 where the hardware multiplies it, else float32.

    AVX-512 is enough for reading; training, which is slower so, asks for more (`trainables.session.pick_dtype`).
    """
    if device.startswith("cuda"):
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    checks = [getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")]
    return torch.bfloat16 if any(check() for check in checks if check is not None) else torch.float32


class PromptReader:
    """A frozen language model that has read the constant part of the prompts.

    Args:
        folder: local folder of a causal or encoder language model with its tokenizer.
        prefix: the constant text.
        device: a torch device; dtype: of prefix and values, or None for `inference_dtype`.
        token_dtype: of the learnable token's position; None for `dtype`. float32 over bfloat16 keys and values costs
            a second copy of the weights and keeps differences that bfloat16 rounds away.
        share: False runs whole prompts always (the reference).

    Attributes:
        shared: whether prompts share their prefixes.
        causal: whether a position sees only what comes before it.

    Raises:
        ValueError: the folder is no model, or names no language model with a tokenizer.
    """

    def __init__(
        self,
        folder: str | Path,
        prefix: str,
        *,
        device: str = "cpu",
        dtype: torch.dtype | None = None,
        token_dtype: torch.dtype | None = None,
        share: bool = True,
    ) -> None:
        from transformers import AutoModel, AutoTokenizer
        from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
        from transformers.utils.logging import disable_progress_bar

        if not (Path(folder) / "config.json").is_file():
            raise ValueError(f"llm: {str(folder)!r} is no model folder (it has no config.json); give a local folder")
        disable_progress_bar()
        ALL_ATTENTION_FUNCTIONS.register(NAME, attend)
        self.folder = Path(folder)
        self.device = torch.device(device)
        self.dtype = inference_dtype(device) if dtype is None else dtype
        self.tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        model = AutoModel.from_pretrained(folder, local_files_only=True, dtype=self.dtype)
        if getattr(model.config, "is_encoder_decoder", False):
            raise ValueError(f"llm: {str(folder)!r} is an encoder-decoder; give a causal model or an encoder")
        self.model = model.to(self.device).eval().requires_grad_(False)
        self.token_dtype = self.dtype if token_dtype is None else token_dtype
        self.token_model = self.model
        if self.token_dtype != self.dtype:
            self.token_model = copy.deepcopy(self.model).to(self.token_dtype)
        self._embedding: nn.Module = model.get_input_embeddings()
        self.hidden_size: int = self._embedding.weight.shape[1]
        self.prefix_ids: list[int] = self.tokenizer(prefix)["input_ids"]
        if not self.prefix_ids:
            raise ValueError("prompt: the constant part is empty; give at least one line before the values")
        ends = {self.tokenizer.eos_token_id, getattr(self.tokenizer, "sep_token_id", None)}
        if len(self.prefix_ids) > 1 and self.prefix_ids[-1] in ends:
            # Some tokenizers close every text; the prompt goes on here.
            self.prefix_ids.pop()
        self.prefix: list[tuple[Tensor, Tensor]] = []
        self.token_prefix: list[tuple[Tensor, Tensor]] = []
        self.causal = self._is_causal()
        self.shared = share and self.causal and self._sees_whole_prompts()
        if self.shared:
            try:
                self._read_prefix()
            except Exception as error:  # any model code may refuse a foreign attention function
                logger.warning("%s does not take a shared prefix (%s); running whole prompts (slow)", folder, error)
                self.shared = False

    def initial_token(self) -> Tensor:
        """Start of the learnable token: the mean of the input embeddings, float32, shape `(hidden,)`."""
        weight: Tensor = self._embedding.weight
        return weight.float().mean(dim=0).detach().cpu()

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of the parts behind the prefix; never empty: an empty text repeats the last prefix token."""
        if not texts:
            return []
        made = self.tokenizer(list(texts), add_special_tokens=False)["input_ids"]
        return [one or self.prefix_ids[-1:] for one in made]

    def read(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        kv_bytes: int = 1 << 31,
        cache: DiskCache | None = None,
        progress: Progress | None = None,
    ) -> Reading | Whole:
        """Reads prompts (token ids behind the prefix).

        Args:
            kv_bytes: most memory for keys and values; what does not fit is read anew whenever the token runs.
            cache: where keys and values are kept on disk between processes.
            progress: called with the prompts read and all prompts.
        """
        if not self.shared:
            return Whole(self, prompts)
        return Reading(self, prompts, kv_bytes, cache, progress)

    def check(self, prompt: Sequence[int]) -> float:
        """Compares one prompt with the model's own way; switches sharing off when they differ.

        Returns:
            The largest difference relative to the largest activation.
        """
        if not self.shared:
            return 0.0
        token = self.initial_token()
        with torch.no_grad():
            whole = Whole(self, [prompt]).run(token)
            fast = Reading(self, [prompt]).run(token)
        error = float((whole - fast).abs().max() / whole.abs().max().clamp_min(1e-12))
        # Rounding in bfloat16 is about 1e-2 through a deep model; a wrong mask or position is of order 1.
        if not error < (1e-3 if self.dtype == torch.float32 else 0.15):
            logger.warning("shared prefix differs from whole prompts by %.3g; running whole prompts (slow)", error)
            self.shared = False
        return error

    # -- what the model allows ---------------------------------------------------------------------------------------

    def _is_causal(self) -> bool:
        """Whether the first position is blind to the last."""
        first = self.prefix_ids[0]
        other = next(i for i in range(3) if i != first)
        ids = torch.tensor([[first] * 4, [first] * 3 + [other]], device=self.device)
        with torch.no_grad():
            hidden = self.model(input_ids=ids).last_hidden_state[:, 0].float()
        return bool((hidden[0] - hidden[1]).abs().max() <= 1e-3 * hidden.abs().max())

    def _sees_whole_prompts(self) -> bool:
        """Whether every layer attends to the whole prompt, as far as the configuration tells."""
        config: Any = self.model.config.get_text_config()
        longest = len(self.prefix_ids) + 256
        window = getattr(config, "sliding_window", None)
        kinds = getattr(config, "layer_types", None)
        full = set(kinds) <= {"full_attention"} if kinds else not window
        if full or (window and window >= longest and set(kinds or ()) <= {"full_attention", "sliding_attention"}):
            return True
        logger.warning("the model's attention is not over the whole prompt; running whole prompts (slow)")
        return False

    def _read_prefix(self) -> None:
        ids = torch.tensor([self.prefix_ids], device=self.device)
        size = ids.shape[1]
        made: list[tuple[Tensor, Tensor]] = []
        ok = torch.ones(1, size, size, dtype=torch.bool, device=self.device).tril()
        positions = torch.arange(size, device=self.device)[None]
        with torch.no_grad(), attending(self.model, Context(1, ok, made=made)):
            self.model(input_ids=ids, position_ids=positions, use_cache=False)
        if len({tensor.shape for pair in made for tensor in pair}) != 1:
            raise ValueError("its layers' keys and values have different shapes")
        self.prefix = [(keys.contiguous(), values.contiguous()) for keys, values in made]
        self.token_prefix = [(k.to(self.token_dtype), v.to(self.token_dtype)) for k, v in self.prefix]


@dataclass
class _Group:
    """Blocks that go through the model together, as tensors padded to the largest.

    Attributes:
        rows: `(R,)` prompts, in the order of their positions; at: `(R,)` their places among `G C`.
        stem_at: `(G, U)` rows of the stem table; stem_ok: which of them are no padding.
        tokens, depths: `(G, M)`; above `(G, M, M)` bool; on `(G, C, M)` bool; ends `(G, C)` tokens before the token.
        nodes: `(G, M)` numbers, -1 for padding.
        own: keys and values, or None where they are read anew each time.
    """

    rows: np.ndarray
    at: Tensor
    stem_at: Tensor
    stem_ok: Tensor
    tokens: Tensor
    depths: Tensor
    above: Tensor
    on: Tensor
    ends: Tensor
    nodes: np.ndarray
    own: Tensor | None = None


class Reading:
    """Prompts that a model has read: the keys and values behind the prefix. See the module's docstring.

    Attributes:
        kept: share of the groups whose keys and values are in memory.
    """

    def __init__(
        self,
        reader: PromptReader,
        prompts: Sequence[Sequence[int]],
        kv_bytes: int = 1 << 31,
        cache: DiskCache | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.reader = reader
        self.tree = PromptTree(prompts)
        self._table: Tensor | None = None
        self._place: dict[int, int] = {}
        left = kv_bytes - self._read_stems()
        self._groups = [self._group(blocks) for blocks in _together(self.tree.blocks)]
        done = 0
        for number, group in enumerate(self._groups):
            left -= self._own_bytes(group)
            if left < 0:
                break
            name = f"group{number}"
            group.own = None if cache is None else cache.get(name, reader.device, self._own_shape(group))
            if group.own is None:
                group.own = self._read_own(group)
                if cache is not None:
                    cache.put(name, group.own)
            done += len(group.rows)
            if progress is not None:
                progress(done, len(self))
        if cache is not None:
            cache.commit()
        self.kept = sum(g.own is not None for g in self._groups) / max(1, len(self._groups))

    def __len__(self) -> int:
        return len(self.tree.lengths)

    def run(self, token: Tensor, progress: Progress | None = None) -> Tensor:
        """Hidden state at the token behind every prompt, float32 on the CPU, `(n, hidden)`.

        Differentiable in `token` `(hidden,)` unless gradients are off.
        """
        out: list[Tensor] = []
        rows: list[np.ndarray] = []
        for group in self._groups:
            out.append(self._run_group(group, token))
            rows.append(group.rows)
            if progress is not None:
                progress(sum(map(len, rows)), len(self))
        back = np.argsort(np.concatenate(rows), kind="stable")
        return torch.cat(out)[torch.from_numpy(back)]

    def _run_group(self, group: _Group, token: Tensor) -> Tensor:
        reader = self.reader
        own = group.own if group.own is not None else self._read_own(group)
        g, c, _ = group.on.shape
        embeds = token.to(reader.device, reader.token_dtype).expand(1, g * c, -1)
        context = Context(g, group.on, reader.token_prefix, self._stem(group), group.stem_ok, own)
        with attending(reader.token_model, context):
            hidden = reader.token_model(
                inputs_embeds=embeds, position_ids=group.ends.view(1, -1), use_cache=False
            ).last_hidden_state
        return hidden[0, group.at].float().cpu()

    # -- reading nodes -----------------------------------------------------------------------------------------------

    def _read_own(self, group: _Group) -> Tensor:
        """`own` of a group, in one forward call over its nodes."""
        reader = self.reader
        g, m = group.tokens.shape
        own = torch.empty(self._own_shape(group), dtype=reader.dtype, device=reader.device)
        if m == 0:
            return own
        made: list[tuple[Tensor, Tensor]] = []
        context = Context(g, group.above, reader.prefix, self._stem(group), group.stem_ok, made=made)
        with torch.no_grad(), attending(reader.model, context):
            reader.model(input_ids=group.tokens.view(1, -1), position_ids=group.depths.view(1, -1), use_cache=False)
        for layer, pair in enumerate(made):
            for i, tensor in enumerate(pair):  # (K, G M, D)
                own[layer, i] = tensor.view(tensor.shape[0], g, m, -1).transpose(0, 1)
        return own

    def _read_stems(self) -> int:
        """Fills the table of stem nodes, from the smallest tree of stems down; returns its bytes."""
        trees: list[PromptTree] = []
        tree = self.tree.stems
        while tree is not None:
            trees.append(tree)
            tree = tree.stems
        if not trees:
            return 0
        keys, _ = self.reader.prefix[0]
        shape = (trees[0].nodes, len(self.reader.prefix), 2, keys.shape[0], keys.shape[2])
        self._table = torch.zeros(shape, dtype=self.reader.dtype, device=self.reader.device)
        for level in reversed(trees):
            for blocks in _together(level.blocks):
                group = self._group(blocks)
                own = self._read_own(group)  # (L, 2, G, K, M, D)
                for b in range(len(blocks)):
                    for node, values in zip(group.nodes[b], own[:, :, b].permute(3, 0, 1, 2, 4), strict=True):
                        if node >= 0:
                            self._table[self._place.setdefault(int(node), len(self._place))] = values
        return self._table.nbytes

    def _stem(self, group: _Group) -> Tensor | None:
        if self._table is None or group.stem_at.shape[1] == 0:
            return None
        return self._table[group.stem_at].permute(2, 3, 0, 4, 1, 5).contiguous()  # (L, 2, G, K, U, D)

    def _own_shape(self, group: _Group) -> tuple[int, ...]:
        keys, _ = self.reader.prefix[0]
        g, m = group.tokens.shape
        return (len(self.reader.prefix), 2, g, keys.shape[0], m, keys.shape[2])

    def _own_bytes(self, group: _Group) -> int:
        return int(np.prod(self._own_shape(group))) * self.reader.dtype.itemsize

    def _group(self, blocks: Sequence[Block]) -> _Group:
        start = len(self.reader.prefix_ids)
        g = len(blocks)
        c = max(len(b.prompts) for b in blocks)
        m = max(len(b.own) for b in blocks)
        u = max(len(b.stem) for b in blocks)
        tokens = np.zeros((g, m), dtype=np.int64)
        depths = np.full((g, m), start, dtype=np.int64)
        # Padded nodes see themselves, so that no softmax is over nothing.
        above = np.broadcast_to(np.eye(m, dtype=bool), (g, m, m)).copy()
        on = np.zeros((g, c, m), dtype=bool)
        ends = np.full((g, c), start, dtype=np.int64)
        stem = np.zeros((g, u), dtype=np.int64)
        stem_ok = np.zeros((g, u), dtype=bool)
        nodes = np.full((g, m), -1, dtype=np.int64)
        at: list[np.ndarray] = []
        for i, b in enumerate(blocks):
            k, p = len(b.own), len(b.prompts)
            tokens[i, :k], depths[i, :k], nodes[i, :k] = b.tokens, b.depths + start, b.own
            above[i, :k, :k] = b.above
            on[i, :p, :k] = b.on
            ends[i, :p] = len(b.stem) + b.on.sum(axis=1) + start
            stem[i, : len(b.stem)] = [self._place[int(node)] for node in b.stem]
            stem_ok[i, : len(b.stem)] = True
            at.append(i * c + np.arange(p))

        def on_device(array: np.ndarray) -> Tensor:
            return torch.from_numpy(array).to(self.reader.device)

        return _Group(
            rows=np.concatenate([b.prompts for b in blocks]),
            at=on_device(np.concatenate(at)),
            stem_at=on_device(stem),
            stem_ok=on_device(stem_ok),
            tokens=on_device(tokens),
            depths=on_device(depths),
            above=on_device(above),
            on=on_device(on),
            ends=on_device(ends),
            nodes=nodes,
        )


def _together(blocks: Sequence[Block]) -> Iterator[list[Block]]:
    """Groups of blocks of similar size, about `_POSITIONS` nodes each."""
    order = sorted(range(len(blocks)), key=lambda i: (len(blocks[i].own), len(blocks[i].prompts)))
    part: list[Block] = []
    for i in order:
        size = max(len(blocks[i].own), len(blocks[i].prompts), 1)
        if part and size * (len(part) + 1) > _POSITIONS:
            yield part
            part = []
        part.append(blocks[i])
    if part:
        yield part


class Whole:
    """Prompts that are run from their first token each time: the reference, and the only way for some models."""

    kept = 0.0

    def __init__(self, reader: PromptReader, prompts: Sequence[Sequence[int]], batch_tokens: int = 2048) -> None:
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
