r"""vLLM's engine, which writes answers for whoever started it: JSON lines come on standard input and go to output.

First line in:  {"model": FOLDER, "tokenizer": FOLDER, "dtype": "float32", "rank": 8 (0: no adapters), "length": 512,
                 "gpus": 1, "gpu_memory": 0.9, "seed": 0}
First line out: {"ready": VERSION}
Then, by turns: {"adapter": FOLDER or "", "prompts": [[7, 3], ..], "seeds": [5, ..] or null, "max_tokens": [64, ..],
                 "temperature": 0.0, "top_p": 1.0, "n": 1, "stop": ["\n"], "ends": [2]}
and:            {"answers": [[[token ids] per sample] per prompt], "cuts": [answers cut at their limit, per prompt]}

What fails is told as {"error": "..."}; a line in `{"error": .., "fatal": true}` is the last one.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import sys
import threading
from typing import Any, TextIO


def main() -> None:
    """Answer until standard input ends."""
    tell = _own_output()
    asked: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(asked,), daemon=True).start()
    try:
        engine = Engine(asked.get())
        engine.rehearse()
        _say(tell, {"ready": engine.version})
    except Exception as error:
        _say(tell, {"error": _line(error), "fatal": True})
        raise
    while True:
        try:
            told = engine.answer(asked.get())
        except Exception as error:
            told = {"error": _line(error)}
        _say(tell, told)


def _own_output() -> TextIO:
    """The pipe that answers go to; what libraries print goes to standard error instead."""
    pipe = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return pipe


def _listen(asked: queue.SimpleQueue[dict[str, Any]]) -> None:
    """Hands on what is asked. Whoever started this process has gone when there is no more: all of its group ends."""
    for line in sys.stdin:
        asked.put(json.loads(line))
    os.killpg(os.getpgrp(), signal.SIGKILL)


def _say(tell: TextIO, told: dict[str, Any]) -> None:
    tell.write(json.dumps(told) + "\n")
    tell.flush()


def _line(error: BaseException) -> str:
    """The error in a line: pydantic's errors have more."""
    return " ".join(f"{error}".split()) or type(error).__name__


class Engine:
    """One model, over which adapters come and go."""

    def __init__(self, how: dict[str, Any]) -> None:
        import vllm
        from vllm.platforms import current_platform

        self.version, self.loaded = str(vllm.__version__), 0
        rank = how["rank"]
        lora = {"enable_lora": True, "max_loras": 1, "max_lora_rank": rank} if rank else {}
        self.llm = vllm.LLM(
            model=how["model"],
            tokenizer=how["tokenizer"],
            dtype=how["dtype"],
            max_model_len=how["length"],
            seed=how["seed"],
            tensor_parallel_size=how["gpus"],
            gpu_memory_utilization=how["gpu_memory"],
            # Of the model's folder nothing is taken that changes which token is chosen.
            generation_config="vllm",
            # On a CPU, graphs are compiled by a compiler that may not be there.
            enforce_eager=current_platform.is_cpu(),
            disable_log_stats=True,
            **lora,
        )

    def rehearse(self) -> None:
        """One token: what the model has and no kernel knows is found out by the first pass."""
        told = {"adapter": "", "prompts": [[0]], "seeds": None, "stop": [], "ends": []}
        self.answer({**told, "max_tokens": [1], "temperature": 0.0, "top_p": 1.0, "n": 1})

    def answer(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Token ids of answers to prompts, without the token that ended each."""
        from vllm import SamplingParams
        from vllm.lora.request import LoRARequest

        ends = frozenset(asked["ends"])
        seeds = asked["seeds"] or [None] * len(asked["prompts"])
        params = [
            SamplingParams(
                n=asked["n"],
                temperature=asked["temperature"],
                top_p=asked["top_p"],
                max_tokens=most,
                seed=seed,
                stop=asked["stop"] or None,
                include_stop_str_in_output=True,
                stop_token_ids=sorted(ends),
                # Those above are all that there are.
                ignore_eos=True,
            )
            for seed, most in zip(seeds, asked["max_tokens"], strict=True)
        ]
        adapter = None
        if asked["adapter"]:
            # A number of its own each time: what lies in a folder may have changed.
            self.loaded += 1
            adapter = LoRARequest(f"adapter-{self.loaded}", self.loaded, asked["adapter"])
        prompts = [{"prompt_token_ids": ids} for ids in asked["prompts"]]
        try:
            found = self.llm.generate(prompts, params, lora_request=adapter, use_tqdm=False)
        finally:
            if adapter is not None:
                self.llm.llm_engine.remove_lora(adapter.lora_int_id)
        answers, cuts = [], []
        for one in found:
            written = sorted(one.outputs, key=lambda output: output.index)
            answers.append([_without_end(list(output.token_ids), ends) for output in written])
            cuts.append(sum(output.finish_reason == "length" for output in written))
        return {"answers": answers, "cuts": cuts}


def _without_end(ids: list[int], ends: frozenset[int]) -> list[int]:
    return ids[:-1] if ids and ids[-1] in ends else ids


if __name__ == "__main__":
    main()
