"""What the measurements share: models, rows, turns of both sides."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple

from raylora.progress import Progress

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

Knobs = dict[str, Any]
# Models of random weights: width, of the feed-forward part, blocks, heads, heads of keys, vocabulary.
RANDOM = {"random-1b": (2048, 8192, 16, 32, 8, 32000)}


@dataclass(frozen=True)
class Batch:
    """What each trial takes a step on: `rows` of `length` tokens, the last quarter of them completion."""

    rows: int
    length: int

    def __str__(self) -> str:
        return f"{self.rows}x{self.length}"


class Took(NamedTuple):
    """Seconds that something took, and those of the process on all its threads, which say more on a busy machine."""

    seconds: float
    cpu_s: float


@dataclass(frozen=True)
class Bench:
    """A base model, and what is the same for all that is measured on it.

    Args:
        variant, rank: of every trial.
        rounds: turns of each side; what the first one allocates is left out of the ratios.
        folder: for what trials write.
    """

    name: str
    base: torch.nn.Module
    tokenizer: PreTrainedTokenizerBase
    variant: str
    rank: int
    rounds: int
    folder: Path
    progress: Progress

    @property
    def device(self) -> torch.device:
        return next(self.base.parameters()).device

    def trials(self, count: int, rows: int) -> list[Knobs]:
        """Configurations that differ in their rates."""
        shared = {"variant": self.variant, "rank": self.rank, "alpha_ratio": 2.0, "batch_size": rows, "dropout": 0.0}
        return [{**shared, "learning_rate": 1e-4 * (place + 1)} for place in range(count)]

    def timed(self, work: Callable[[], object]) -> Took:
        """How long it takes, on the device too."""
        import torch

        started, before = time.perf_counter(), time.process_time()
        work()
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return Took(time.perf_counter() - started, time.process_time() - before)


def open_model(name: str, dtype: str, device: str, quiet: bool) -> tuple[torch.nn.Module, PreTrainedTokenizerBase]:
    """A model by its name, or one of `RANDOM`, and its tokenizer."""
    import torch

    from raylora.models import resolve
    from trainables.host import quiet_libraries
    from trainables.session import load_model, pick_device, pick_dtype
    from trainables.testing import make_tiny_tokenizer

    quiet_libraries()
    if name not in RANDOM:
        return load_model(resolve(name, quiet=quiet), dtype, device)
    from transformers import LlamaConfig, LlamaForCausalLM

    hidden, wide, layers, heads, kept, vocabulary = RANDOM[name]
    config = LlamaConfig(
        hidden_size=hidden, intermediate_size=wide, num_hidden_layers=layers, num_attention_heads=heads,
        num_key_value_heads=kept, vocab_size=vocabulary, tie_word_embeddings=True,
    )  # fmt: skip
    place = pick_device(device)
    torch.manual_seed(0)
    with place:
        model = LlamaForCausalLM._from_config(config, dtype=pick_dtype(dtype, place))
    return model.eval(), make_tiny_tokenizer()


def make_rows(count: int, length: int, vocabulary: int, seed: int = 0) -> list[dict[str, Any]]:
    """Rows of random tokens."""
    draw = random.Random(seed)
    ids = [[draw.randrange(vocabulary) for _ in range(length)] for _ in range(count)]
    cut = length - max(1, length // 4)
    return [{"row": i, "prompt_ids": row[:cut], "response_ids": row[cut:]} for i, row in enumerate(ids)]


def turns(bench: Bench, sides: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[Took]]:
    """What each turn of each side took."""
    took: dict[str, list[Took]] = {side: [] for side in sides}
    for at in range(rounds):
        # Who comes first changes: neither has the better half of a machine that slows down.
        for side in sorted(sides, reverse=bool(at % 2)):
            took[side].append(bench.timed(sides[side]))
    return took


def compared(took: Mapping[str, Sequence[Took]]) -> dict[str, Any]:
    """How many times as fast together is as alone, by turns after the first: by the clock and by processor time."""
    pairs = list(zip(took["alone"][1:], took["packed"][1:], strict=True))
    ratios = [alone.seconds / packed.seconds for alone, packed in pairs]
    return {
        "speedup": median(ratios),
        "ratios": ratios,
        "cpu_speedup": median(alone.cpu_s / packed.cpu_s for alone, packed in pairs),
    }
