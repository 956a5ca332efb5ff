"""Speed of generating answers, against `transformers.generate` on the same rows, in one run."""

from __future__ import annotations

import contextlib
import random
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from raylora.progress import Progress

NAMES = ("Ada", "Ben", "Chen", "Dora", "Emil", "Fatima", "Goran", "Hana")
THINGS = ("apples", "books", "coins", "bottles", "tickets", "stamps", "pencils", "cards")
# Logits that are no further apart are equal but for rounding in fp32.
TIE = 1e-4
DEEDS = ("finds {n} more {what}", "gives away {n} {what}", "buys {n} {what} for {m} cents each", "counts {n} {what}")


def bench_evaluate(
    model: str,
    *,
    rows: int = 200,
    shortest: int = 5,
    longest: int = 160,
    batches: Sequence[int] = (8, 32, 200),
    dtype: str = "float32",
    engine: str | None = None,
    seed: int = 0,
    quiet: bool = False,
) -> dict[str, Any]:
    """Answer the same questions with the evaluation of trials and with `transformers.generate`, greedily.

    Every answer ends at a length of its own, drawn evenly from `shortest` to `longest`, that neither side knows before:
    end tokens count for nothing. transformers gets the rows in the order of their prompts' lengths, so that it pads
    little.

    Args:
        model: alias, folder or hub id.
        rows: questions, of one to a dozen sentences.
        shortest, longest: answers, in tokens.
        batches: sizes at which transformers is measured.
        engine: `vllm` has vLLM answer, too, by the engine of `evaluate.engine`.

    Returns:
        `ours` and `transformers` (by batch size): `seconds`, `cpu_s` (of this process on all its threads, which tells
        more on a busy machine), `rows_per_s`, `tokens_per_s` each. `best_batch` of transformers; `speedup` and
        `cpu_speedup`, its seconds there over ours; `equal_rows`, how many answers are the same there token
        for token; `differ_at`, for each other row its first other token's place, and `gaps`, how far apart the logits
        of the two tokens are there when the row is read alone; `tied_rows`, those with a gap below `TIE`, whose choice
        is one of rounding; `rows`, `tokens`, `threads`. With an engine `vllm`: the same figures, `load_s`, the seconds
        until it could answer, `speedup` and `cpu_speedup`, ours over its, and `equal_rows`, how many answers are ours.
    """
    import torch

    from raylora.models import resolve
    from trainables.decode import generate_and_score_loss
    from trainables.evaluation import pad_token
    from trainables.host import quiet_libraries
    from trainables.protocols import Sampling
    from trainables.session import load_model

    quiet_libraries()
    progress = Progress(quiet=quiet)
    base, tokenizer = load_model(resolve(model, quiet=quiet), dtype)
    pad = pad_token(tokenizer)
    questions = _questions(tokenizer, rows, seed)
    lengths = random.Random(seed).choices(range(shortest, longest + 1), k=rows)
    prompts = [{"prompt_ids": ids, "response_ids": [pad]} for ids in questions]

    def ours(count: int) -> list[list[int]]:
        decoded = generate_and_score_loss(
            base,
            prompts[:count],
            pad_id=pad,
            eos_ids=[],
            sampling=Sampling(longest),
            limits=lengths[:count],
            device=next(base.parameters()).device,
        )
        return [answers[0] for answers in decoded.answers]

    tokens = sum(lengths)

    def timed(work: Callable[[], list[list[int]]]) -> tuple[dict[str, float], list[list[int]]]:
        started, before = time.perf_counter(), time.process_time()
        answers = work()
        seconds = time.perf_counter() - started
        speeds = {"rows_per_s": rows / seconds, "tokens_per_s": tokens / seconds}
        return {"seconds": seconds, "cpu_s": time.process_time() - before, **speeds}, answers

    ours(min(2, rows))  # what only the first pass has to do is left out
    progress.say(f"{rows} answers of {shortest} to {longest} tokens")
    own, found = timed(lambda: ours(rows))
    result: dict[str, Any] = {"ours": own, "transformers": {}}
    theirs: dict[int, list[list[int]]] = {}
    for size in batches:
        progress.say(f"transformers, batches of {size}")
        told, theirs[size] = timed(partial(_with_transformers, base, questions, lengths, size, pad))
        result["transformers"][str(size)] = told
    others = {} if engine is None else {"vllm": _with_vllm(base, model, questions, lengths, found, own, progress)}
    best = min(batches, key=lambda size: result["transformers"][str(size)]["seconds"])
    differ = [_first_other(*pair) for pair in zip(found, theirs[best], strict=True)]
    places = {row: place for row, place in enumerate(differ) if place is not None}
    gaps = {row: _gap(base, questions[row], found[row], theirs[best][row], place) for row, place in places.items()}
    return {
        **result,
        **others,
        "best_batch": best,
        "speedup": result["transformers"][str(best)]["seconds"] / own["seconds"],
        "cpu_speedup": result["transformers"][str(best)]["cpu_s"] / own["cpu_s"],
        "equal_rows": differ.count(None),
        "differ_at": {str(row): place for row, place in places.items()},
        "gaps": {str(row): gap for row, gap in gaps.items()},
        "tied_rows": sum(gap < TIE for gap in gaps.values()),
        "rows": rows,
        "tokens": tokens,
        "threads": torch.get_num_threads(),
    }


def _questions(tokenizer: Any, rows: int, seed: int) -> list[list[int]]:
    """Token ids of made-up questions."""
    draw = random.Random(seed + 1)
    questions = []
    for _ in range(rows):
        name, what = draw.choice(NAMES), draw.choice(THINGS)
        parts = [f"{name} has {draw.randint(2, 90)} {what}."]
        for _ in range(draw.randint(0, 11)):
            deed = draw.choice(DEEDS).format(n=draw.randint(2, 90), m=draw.randint(2, 90), what=what)
            parts.append(f"{draw.choice(NAMES)} {deed}.")
        text = " ".join([*parts, f"How many {what} does {name} have now? Explain."])
        questions.append(chat_ids(tokenizer, text))
    return questions


def chat_ids(tokenizer: Any, text: str, system: str | None = None) -> list[int]:
    """Token ids of a question, in the tokenizer's chat template where it has one.

    Args:
        system: system message; None leaves it to the template.
    """
    if tokenizer.chat_template:
        turns = [] if system is None else [{"role": "system", "content": system}]
        turns.append({"role": "user", "content": text})
        text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    return list(tokenizer(text, add_special_tokens=not tokenizer.chat_template)["input_ids"])


def _with_transformers(
    model: Any, questions: Sequence[Sequence[int]], lengths: Sequence[int], size: int, pad: int
) -> list[list[int]]:
    """The answers by `generate`, `(n,)`, in batches of `size` rows."""
    import torch
    from transformers import GenerationConfig, StoppingCriteria, StoppingCriteriaList

    from trainables.batching import pad_left

    class OwnLength(StoppingCriteria):
        def __init__(self, start: int, own: torch.Tensor) -> None:
            self.start, self.own = start, own

        def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> object:
            return input_ids.shape[1] - self.start >= self.own

    device = next(model.parameters()).device
    answers: list[list[int]] = [[] for _ in questions]
    order = sorted(range(len(questions)), key=lambda i: len(questions[i]), reverse=True)
    for first in range(0, len(order), size):
        places = order[first : first + size]
        inputs = {k: v.to(device) for k, v in pad_left([questions[i] for i in places], pad).items()}
        width, own = inputs["input_ids"].shape[1], [lengths[i] for i in places]
        config = GenerationConfig(max_new_tokens=max(own), do_sample=False, pad_token_id=pad)
        with torch.inference_mode(), _without_own_settings(model):
            out = model.generate(
                input_ids=inputs["input_ids"],
                attention_mask=inputs["attention_mask"],
                generation_config=config,
                stopping_criteria=StoppingCriteriaList([OwnLength(width, torch.tensor(own, device=device))]),
            )
        for i, ids, count in zip(places, out[:, width:].tolist(), own, strict=True):
            answers[i] = ids[:count]
    return answers


def _with_vllm(
    model: Any,
    name: str,
    questions: Sequence[Sequence[int]],
    lengths: Sequence[int],
    ours: Sequence[Sequence[int]],
    own: Mapping[str, float],
    progress: Progress,
) -> dict[str, float]:
    """The same answers by vLLM's engine: its figures, and ours over them."""
    import torch

    from raylora.run.engine.actor import Engine, EngineSetup
    from trainables.protocols import Sampling
    from trainables.written import Asked

    progress.say("vLLM: loading the model")
    dtype = str(next(model.parameters()).dtype).removeprefix("torch.")
    longest = max(map(len, questions)) + max(lengths)
    with tempfile.TemporaryDirectory(prefix="raylora-bench-") as work:
        engine = Engine(EngineSetup(name, length=longest + 1, rank=8, run_dir=work, threads=torch.get_num_threads()))
        try:
            started = time.perf_counter()
            engine.start(dtype)
            load_s = time.perf_counter() - started
            progress.say("vLLM")
            before, started = engine.cpu_seconds(), time.perf_counter()
            wrote = engine.write(Asked("", questions, Sampling(max(lengths)), [], dtype, limits=lengths))
            seconds, cpu_s = time.perf_counter() - started, engine.cpu_seconds() - before
        finally:
            engine.close()
    assert wrote is not None
    return {
        "seconds": seconds,
        "cpu_s": cpu_s,
        "rows_per_s": len(questions) / seconds,
        "tokens_per_s": sum(lengths) / seconds,
        "load_s": load_s,
        "speedup": own["seconds"] / seconds,
        "cpu_speedup": own["cpu_s"] / cpu_s,
        "equal_rows": sum(answers[0] == list(mine) for answers, mine in zip(wrote.answers, ours, strict=True)),
    }


@contextlib.contextmanager
def _without_own_settings(model: Any) -> Iterator[None]:
    """`generate` takes what it is not told from the model's own settings, the end token among them: there are none."""
    from transformers import GenerationConfig

    own, model.generation_config = model.generation_config, GenerationConfig()
    try:
        yield
    finally:
        model.generation_config = own


def _gap(model: Any, question: Sequence[int], mine: Sequence[int], other: Sequence[int], place: int) -> float:
    """How far apart the logits of two answers' first different tokens are, read without padding or other rows."""
    import torch

    ids = torch.tensor([[*question, *mine[:place]]], device=next(model.parameters()).device)
    with torch.inference_mode():
        logits = model(input_ids=ids, use_cache=False, logits_to_keep=1).logits[0, -1].float()
    return abs(float(logits[mine[place]] - logits[other[place]]))


def _first_other(mine: Sequence[int], other: Sequence[int]) -> int | None:
    """Where two answers differ first; None where they do not."""
    if list(mine) == list(other):
        return None
    pairs = zip(mine, other, strict=False)
    return next((place for place, (a, b) in enumerate(pairs) if a != b), min(len(mine), len(other)))
