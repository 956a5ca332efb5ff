"""lm-evaluation-harness on a model that is already loaded."""

from __future__ import annotations

import contextlib
import functools
import logging
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from raylora.errors import UserError
from raylora.metrics.core.likelihood import option_scores

LONGEST = 256  # tokens that the harness generates where a task does not say
_RESAMPLES = 500


def check_installed(task: str) -> None:
    """Raise UserError where lm-evaluation-harness is missing."""
    from importlib.util import find_spec

    if find_spec("lm_eval") is None:
        raise UserError.at(
            "task.metrics",
            f"harness/{task} needs lm-evaluation-harness; pip install raylora[eval]",
            value=f"harness/{task}",
        )


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Without the harness's remarks, progress bars and processes of its own."""
    names = {"DISABLE_MULTIPROC": "1", "TQDM_DISABLE": "1", "TOKENIZERS_PARALLELISM": "false"}
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(names)
    logger = logging.getLogger("lm_eval")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


@functools.lru_cache(maxsize=8)
def load_task(name: str, folder: str | None) -> tuple[object, object]:
    """The harness's manager and the loaded task or group of that name; kept, for its rows are read once.

    Args:
        folder: of YAML files that define tasks; None for the tasks that come with the harness.

    Raises:
        UserError: an unknown name, or a task whose data cannot be read.
    """
    with _quietly():
        from datasets.utils.logging import disable_progress_bar
        from lm_eval.tasks import TaskManager

        disable_progress_bar()
        manager = TaskManager(include_path=folder, include_defaults=folder is None)
        known = [*manager.all_tasks]
        if name not in known:
            shown = ", ".join(sorted(known)[:20]) + (", ..." if len(known) > 20 else "")
            raise UserError.at(
                "task.metrics",
                f"harness/{name}: no such task of lm-evaluation-harness; {folder or 'it'} has {shown or 'none'}",
                value=f"harness/{name}",
            )
        try:
            return manager, manager.load([name])
        except Exception as error:  # whatever a task's YAML and the reading of its data raise
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            raise UserError.at(
                "task.metrics",
                f"harness/{name} cannot be loaded ({reason}); give metrics a folder of YAML files and local data",
                value=f"harness/{name}",
            ) from error


def better_ends(loaded: Any) -> dict[str, bool]:
    """Metric -> whether more is better, of all tasks in it, in their order."""
    found: dict[str, bool] = {}
    for task in loaded["tasks"].values():
        found |= {name: bool(more) for name, more in task.higher_is_better().items()}
    return found


def run(name: str, folder: str | None, model: Any, tokenizer: Any, **options: Any) -> dict[str, Any]:
    """What `lm_eval.simple_evaluate` says of a task, on this model.

    Random numbers of the process are left as they are, but for the examples that a task draws.

    Args:
        options: keyword arguments of `simple_evaluate`.

    Raises:
        UserError: the task fails.
    """
    manager, _ = load_task(name, folder)
    with _quietly():
        from lm_eval import simple_evaluate

        try:
            return dict(
                simple_evaluate(
                    make_adapter(model, tokenizer),
                    tasks=[name],
                    task_manager=manager,
                    bootstrap_iters=_RESAMPLES,
                    random_seed=None,
                    numpy_random_seed=None,
                    torch_random_seed=None,
                    **options,
                )
            )
        except UserError:
            raise
        except Exception as error:  # whatever a task of somebody else's does
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            raise UserError.at("task.metrics", f"harness/{name} failed ({reason})", value=f"harness/{name}") from error


def make_adapter(model: Any, tokenizer: Any) -> object:
    """A model of transformers, as it stands, as an `lm_eval.api.model.LM`.

    Likelihoods and answers are computed as those of trials are.
    """
    from lm_eval.api.model import TemplateLM
    from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

    end, pad = tokenizer.eos_token_id, tokenizer.pad_token_id
    longest = _positions(model)

    class Adapter(TemplateLM):
        backend = "causal"

        @property
        def eot_token_id(self) -> int:
            return int(end)

        @property
        def prefix_token_id(self) -> int:
            return int(end if tokenizer.bos_token_id is None else tokenizer.bos_token_id)

        @property
        def tokenizer_name(self) -> str:
            return str(tokenizer.name_or_path).replace("/", "__")

        def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> list[int]:
            more = {} if add_special_tokens is None else {"add_special_tokens": add_special_tokens}
            return list(tokenizer(string, **more)["input_ids"])

        def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
            return str(
                tokenizer.apply_chat_template(
                    chat_history,
                    tokenize=False,
                    add_generation_prompt=add_generation_prompt,
                    continue_final_message=not add_generation_prompt,
                )
            )

        def _loglikelihood_tokens(self, requests: Any, **kwargs: Any) -> list[tuple[float, bool]]:
            # Options of one question follow each other: their prompt is read once.
            groups: dict[tuple[int, ...], list[int]] = {}
            for place, (_, context, continuation) in enumerate(requests):
                kept = longest - len(continuation)
                groups.setdefault(tuple(context[-kept:] if kept > 0 else context[-1:]), []).append(place)
            prompts = [list(context) for context in groups]
            options = [[list(requests[place][2])[-longest:] for place in places] for places in groups.values()]
            found: list[tuple[float, bool]] = [(0.0, True)] * len(requests)
            scored = option_scores(model, prompts, options, pad_id=pad if pad is not None else 0)
            for places, scores in zip(groups.values(), scored, strict=True):
                for place, value, greedy in zip(places, scores.log_likelihoods, scores.greedy, strict=True):
                    found[place] = (value, greedy)
            return found

        def loglikelihood_rolling(self, requests: Any, disable_tqdm: bool = False) -> list[float]:
            sums = []
            for request in requests:
                ids = self.tok_encode(request.args[0])
                windows = get_rolling_token_windows(
                    token_list=ids, prefix_token=self.prefix_token_id, max_seq_len=longest - 1, context_len=1
                )
                parts = [("", *make_disjoint_window(window)) for window in windows]
                sums.append(math.fsum(value for value, _ in self._loglikelihood_tokens(parts)))
            return sums

        def generate_until(self, requests: Any, disable_tqdm: bool = False) -> list[str]:
            return _generated(model, tokenizer, [one.args for one in requests], self, longest)

    return Adapter()


def _generated(
    model: Any, tokenizer: Any, requests: Sequence[tuple[str, dict[str, Any]]], adapter: Any, longest: int
) -> list[str]:
    """An answer to each request, `(n,)`; those of the same settings are generated together."""
    from trainables.decode import generate_and_score_loss
    from trainables.evaluation import end_tokens
    from trainables.protocols import Sampling
    from trainables.sampling import cut, stopping

    alike: dict[Sampling, list[int]] = {}
    for place, (_, told) in enumerate(requests):
        alike.setdefault(_sampling(told), []).append(place)
    texts: dict[int, str] = {}
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    for sampling, places in alike.items():
        room = max(1, longest - sampling.max_new_tokens)
        rows = [
            {"row": place, "prompt_ids": adapter.tok_encode(requests[place][0])[-room:], "response_ids": [pad]}
            for place in places
        ]
        decoded = generate_and_score_loss(
            model,
            rows,
            pad_id=pad,
            eos_ids=end_tokens(model, tokenizer),
            sampling=sampling,
            ended=stopping(tokenizer, sampling.stop),
            device=next(model.parameters()).device,
        )
        written = tokenizer.batch_decode([answers[0] for answers in decoded.answers], skip_special_tokens=True)
        texts |= {place: cut(text, sampling.stop) for place, text in zip(places, written, strict=True)}
    return [texts[place] for place in range(len(requests))]


def _sampling(told: dict[str, Any]) -> Any:
    """The settings of a request to generate, as `Sampling`."""
    from trainables.protocols import Sampling

    until = told.get("until") or []
    drawn = told.get("do_sample", False) and float(told.get("temperature", 1.0)) > 0
    return Sampling(
        max_new_tokens=int(told.get("max_gen_toks") or told.get("max_new_tokens") or LONGEST),
        temperature=float(told.get("temperature", 1.0)) if drawn else 0.0,
        top_p=float(told.get("top_p", 1.0)) if drawn else 1.0,
        stop=tuple(one for one in ([until] if isinstance(until, str) else until) if one),
    )


def _positions(model: Any) -> int:
    """How many tokens the model can read."""
    config = getattr(model, "config", None)
    for name in ("max_position_embeddings", "n_positions"):
        if getattr(config, name, None):
            return int(getattr(config, name))
    return 2048


def folder_of(path: str | None) -> str | None:
    """The folder of tasks, absolute: another process may run elsewhere. Raises UserError where there is none."""
    if path is None:
        return None
    folder = Path(path).expanduser().resolve()
    if not folder.is_dir():
        raise UserError.at(
            "harness.path", f"{path!r} is no folder; give the one with the tasks' YAML files", value=path
        )
    return str(folder)
