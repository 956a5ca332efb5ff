"""Hidden states of configurations: from a space's prompts to the rows that the surrogate works on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ...space import Space
from .cache import DiskCache, key, model_bytes
from .embed import PromptReader
from .model import Progress, pick_device
from .prompt import Prompt
from .shared import Reading
from .whole import Whole

if TYPE_CHECKING:
    from ..setup import Setup

# Configurations whose hidden states give the surrogate its units.
_REFERENCE = 512


class HiddenStates:
    """What a language model makes of the configurations of a space.

    While the token stays where it starts (`setup.token` off), hidden states never change: they are computed once and
    kept, in memory and on disk. A token that moves leaves the prompts' keys and values as they are: those are kept.

    Args:
        llm: folder of the language model. setup: of the surrogate.
    """

    def __init__(self, llm: str | Path, space: Space, setup: Setup) -> None:
        self.space, self.setup = space, setup
        if setup.prompt is None:
            self.prompt = Prompt(space, style=setup.prompt_style)
        else:
            self.prompt = Prompt.from_file(space, setup.prompt, setup.prompt_style)
        self.reader = PromptReader(
            llm,
            self.prompt.prefix,
            device=pick_device(setup.device, setup.num_gpus),
            dtype=None if setup.dtype is None else getattr(torch, setup.dtype),
            token_dtype=None if setup.token_dtype is None else getattr(torch, setup.token_dtype),
        )
        self.reader.check(self._ids([0])[0])
        self._still: dict[int, Tensor] = {}
        self._pool: tuple[np.ndarray, Tensor] | None = None
        self._reading: tuple[np.ndarray, Reading | Whole] | None = None

    @property
    def shared(self) -> bool:
        """Whether prompts share their prefixes."""
        return self.reader.shared

    def info(self) -> dict[str, Any]:
        return {
            "device": str(self.reader.device),
            "dtype": str(self.reader.dtype).removeprefix("torch."),
            "shared": self.reader.shared,
            "kept": None if self._reading is None else self._reading[1].kept,
        }

    def initial_token(self) -> Tensor:
        """Where the token starts, `(hidden,)`."""
        return self.reader.initial_token()

    def pool_states(self, pool: np.ndarray, token: Tensor | None, progress: Progress | None = None) -> Tensor:
        """`(c, hidden)` of the pool's configurations at `token`, or where it starts if None."""
        with torch.no_grad():
            if token is not None or self.setup.token:
                reading = self._read_pool(pool, progress)
                return reading.run(self.initial_token() if token is None else token, progress)
            if self._pool is None or not np.array_equal(self._pool[0], pool):
                self._pool = (pool, self._still_states(pool, progress))
            return self._pool[1]

    def reference(self, pool: np.ndarray) -> Tensor:
        """Hidden states, at the token's start, of configurations that stand for the pool."""
        if not self.setup.token:
            return self.pool_states(pool, None)
        some = np.random.default_rng(0).choice(len(pool), size=min(_REFERENCE, len(pool)), replace=False)
        with torch.no_grad():
            return self.reader.read(self._ids(pool[some])).run(self.initial_token())

    def observed(self, indices: Sequence[int]) -> Callable[[Tensor | None], Tensor]:
        """`token -> (n, hidden)` of a few configurations, differentiable where the token moves."""
        if self.setup.token:
            reading = self.reader.read(self._ids(indices))
            start = self.initial_token()
            return lambda token: reading.run(start if token is None else token)
        missing = [i for i in indices if i not in self._still]
        if missing and self._pool is not None:
            rows = np.searchsorted(self._pool[0], missing)
            for i, row in zip(missing, np.minimum(rows, len(self._pool[0]) - 1), strict=True):
                if self._pool[0][row] == i:
                    self._still[i] = self._pool[1][row]
            missing = [i for i in missing if i not in self._still]
        if missing:
            with torch.no_grad():
                made = self.reader.read(self._ids(missing)).run(self.initial_token())
            self._still.update(zip(missing, made, strict=True))
        states = torch.stack([self._still[i] for i in indices])
        return lambda token: states

    # -- reading -----------------------------------------------------------------------------------------------------

    def _ids(self, indices: Sequence[int] | np.ndarray) -> list[list[int]]:
        return self.reader.ids([self.prompt.values(self.space.decode(int(i))) for i in indices])

    def _cache(self, what: str, prompts: Sequence[Sequence[int]]) -> DiskCache | None:
        if not self.setup.cache or not self.reader.shared:
            return None
        reader = self.reader
        flat = np.concatenate([np.asarray([*p, -1], dtype=np.int64) for p in prompts])
        types = (reader.dtype, reader.token_dtype)
        config = (reader.folder / "config.json").read_text()
        name = key([what, model_bytes(reader.folder), config, reader.prefix_ids, key([flat.tobytes()]), types])
        return DiskCache(name)

    def _still_states(self, pool: np.ndarray, progress: Progress | None) -> Tensor:
        prompts = self._ids(pool)
        cache = self._cache("states", prompts)
        states = None if cache is None else cache.get("states")
        if states is None:
            # One pass over the tree: nothing has to be kept for another.
            states = self.reader.read(prompts, kv_bytes=0).run(self.initial_token(), progress)
            if cache is not None:
                cache.put("states", states)
                cache.commit()
        return states

    def _read_pool(self, pool: np.ndarray, progress: Progress | None) -> Reading | Whole:
        if self._reading is None or not np.array_equal(self._reading[0], pool):
            prompts = self._ids(pool)
            budget = int(self.setup.kv_budget_gb * (1 << 30))
            reading = self.reader.read(
                prompts, kv_bytes=budget, cache=self._cache("keys and values", prompts), progress=progress
            )
            self._reading = (pool, reading)
        return self._reading[1]
