"""Seconds to score several adapters from batches with rows of all, and one after the other."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from raylora.bench.evaluate import chat_ids
from raylora.bench.packed.arms import Bench, compared, make_rows, turns
from trainables.protocols import Mark, Outputs, Row, Sampling, TrainSettings

BAR = 1.3
# Of prompts that are trained on, references, and the longest answer.
PROMPT, REFERENCE, ANSWER = 30, 8, 64


@dataclass(frozen=True)
class Read:
    """A scorer that reads answers and thinks nothing of them."""

    sampling: Sampling = field(default_factory=lambda: Sampling(max_new_tokens=ANSWER))
    metric: str = "none"
    mode: str = "max"
    texts: list[Sequence[Sequence[str]]] = field(default_factory=list)

    def needs(self, split: str) -> frozenset[str]:
        return frozenset({"texts"})

    def measure(self, split: str, model: object, tokenizer: object, rows: Sequence[Row]) -> Sequence[Any]:
        return ()

    def marks(self, split: str, outputs: Outputs, rows: Sequence[Row]) -> list[Mark]:
        self.texts.append(outputs.texts)
        return [{"values": {}} for _ in rows]

    def figures(self, split: str, marks: Sequence[Mark]) -> dict[str, float | None]:
        return {}

    def worst_figures(self, split: str) -> dict[str, float | None]:
        return {}


def compare_evaluation(bench: Bench, adapters: int, rows: int, rounds: int = 3) -> dict[str, Any]:
    """Both sides score the same adapters on the same rows, in turns, with what trials use.

    Returns:
        `adapters`, `rows` (of each), `seconds` of both sides, `speedup`, `ratios`, `cpu_speedup` as in training,
        `equal_answers`: how many of all answers are the same text, and the `bar`.
    """
    from trainables.evaluation import pad_token
    from trainables.packed.evaluation import evaluate_together
    from trainables.packed.passes import make_pass
    from trainables.packed.run import PackedRun
    from trainables.packed.trunk import Trunk
    from trainables.packed.twin import twin
    from trainables.run import TrialRun

    knobs, pad = bench.trials(adapters, 2), pad_token(bench.tokenizer)
    train = make_rows(2, PROMPT, bench.base.config.vocab_size)
    settings = TrainSettings(samples=4)
    trunk = Trunk(bench.base)
    packed = [PackedRun(twin(bench.base), own, train, settings, pad_id=pad, trunk=trunk) for own in knobs]
    for run, loss in zip(packed, make_pass(trunk, packed, pad), strict=True):
        run.took(loss, 0.0)
    alone = [TrialRun(twin(bench.base), own, train, settings, pad_id=pad) for own in knobs]
    for at, (run, other) in enumerate(zip(packed, alone, strict=True)):
        run.save(bench.folder / f"adapter-{at}")
        other.load(bench.folder / f"adapter-{at}")
    asked = _questions(bench, rows)
    seen: dict[str, Read] = {"packed": Read(), "alone": Read()}

    def turn_packed() -> None:
        for judge in evaluate_together(trunk, packed, asked, seen["packed"], bench.tokenizer):
            judge()

    def turn_alone() -> None:
        for run in alone:
            run.evaluate(asked, seen["alone"], bench.tokenizer)

    took = turns(bench, {"packed": turn_packed, "alone": turn_alone}, rounds)
    pairs = zip(seen["packed"].texts, seen["alone"].texts, strict=True)
    equal = [
        one == other
        for packed_texts, alone_texts in pairs
        for one, other in zip(packed_texts, alone_texts, strict=True)
    ]
    return {
        "model": bench.name,
        "adapters": adapters,
        "rows": rows,
        "seconds": {side: [one.seconds for one in each] for side, each in took.items()},
        **compared(took),
        "equal_answers": sum(equal) / len(equal),
        "bar": BAR,
    }


def _questions(bench: Bench, count: int) -> list[dict[str, Any]]:
    """Sums of a few numbers, asked as chats are, of which most answers explain until they are cut off."""
    draw = random.Random(1)
    rows = []
    for at in range(count):
        numbers = [draw.randint(2, 99) for _ in range(4)]
        bought = f"buys {numbers[1]} more, then {numbers[2]} and {numbers[3]}"
        text = f"Ada has {numbers[0]} apples and {bought}. How many are there? Explain each step."
        ids = chat_ids(bench.tokenizer, text, system="")
        rows.append({"row": at, "prompt_ids": ids, "response_ids": ids[:REFERENCE]})
    return rows
