"""Time and memory of a run over many rows, and what the bare tokenizer takes for the same rows, in one go."""

from __future__ import annotations

import contextlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from raylora.errors import UserError
from raylora.progress import Progress
from raylora.spec.paths import writable_folder

SMALL, SAMPLES, VOCABULARY = 512, 8, 4096
BARE_AT_MOST = 400_000
_PHRASES, _WORDS_PER_PHRASE, _POLL_S = 4000, 10, 0.2

_BARE = """
import itertools, json, sys, time
from tokenizers import Tokenizer
tokenizer, seconds, tokens = Tokenizer.from_file(sys.argv[1]), 0.0, 0
def encode(texts):
    global seconds, tokens
    started = time.perf_counter()
    found = tokenizer.encode_batch_fast(texts, add_special_tokens=False)
    seconds += time.perf_counter() - started
    tokens += sum(len(one) for one in found)
texts = []
with open(sys.argv[2]) as lines:
    for line in itertools.islice(lines, int(sys.argv[4])):
        row = json.loads(line)
        texts += [sys.argv[3] % row["prompt"], row["response"]]
        if len(texts) >= 8192:
            encode(texts)
            texts = []
encode(texts)
print(json.dumps({"seconds": seconds, "tokens": tokens}))
"""


def bench_data(
    *, rows: int = 395_000, words: int = 210, folder: str | Path | None = None, quiet: bool = False
) -> dict[str, float]:
    """Run `raylora tune` with one trial on a tiny model over generated rows.

    A few of them first, then all of them with an empty cache (cold), then again (warm).

    Args:
        rows: Rows in the file of JSON Lines.
        words: Words per row, prompt and response together.
        folder: Where file, cache and runs are made; they go at the end. It is made where it is not there. Takes about
            8 kB a row.

    Returns:
        Seconds: `bare_s` (tokenizers' `encode_batch_fast` on all cores, on the texts of all rows, reading apart; of
        more than 400,000 rows the first ones are taken for all), `small_s` (the command on few rows: what it costs
        without data), `cold_s`, `warm_s` (the command, end to end), `cold_data_s`, `warm_data_s` (its data phase),
        `longest_silence_s` (of the data phase of the cold run).
        `cold_over_bare`, `cold_data_over_bare`: ratios. Memory in MB, peaks of resident memory: `driver_mb`, `host_mb`
        (the process with the model), `host_over_model_mb` (beyond the same process on few rows). `tokens`, `file_mb`,
        `rows`.

    Raises:
        UserError: rows of one word, a folder that cannot be written to, or what the command itself refuses.
    """
    if words < 2:
        raise UserError.at("--words", f"{words}; allowed: at least 2, one of them the response", value=words)
    if folder is not None:
        folder = Path(folder).expanduser()
        writable_folder(folder, f"--folder {folder}")
    progress = Progress(quiet=quiet)
    with tempfile.TemporaryDirectory(dir=folder, prefix="raylora-bench-") as scratch:
        root = Path(scratch)
        progress.say(f"making {rows:,} rows of {words} words")
        phrases = _phrases()
        _write_rows(root / "all.jsonl", rows, words, phrases)
        _write_rows(root / "small.jsonl", min(rows, SMALL), words, phrases)
        _make_model(root / "model", phrases, 4 * words + 256)
        progress.say("a run on few rows, for the rest of its cost")
        small = _tune(root, "small", "small.jsonl", words)
        progress.say(f"bare tokenizers: {min(rows, BARE_AT_MOST):,} rows")
        bare = _bare(root, rows)
        progress.say("cold run")
        cold = _tune(root, "cold", "all.jsonl", words)
        progress.say("warm run")
        warm = _tune(root, "warm", "all.jsonl", words)
        size = (root / "all.jsonl").stat().st_size
    return {
        "rows": float(rows),
        "file_mb": size / 1e6,
        "tokens": bare["tokens"],
        "bare_s": bare["seconds"],
        "small_s": small["seconds"],
        "cold_s": cold["seconds"],
        "cold_data_s": cold["data_s"],
        "warm_s": warm["seconds"],
        "warm_data_s": warm["data_s"],
        "cold_over_bare": cold["seconds"] / bare["seconds"],
        "cold_data_over_bare": cold["data_s"] / bare["seconds"],
        "longest_silence_s": cold["silence_s"],
        "driver_mb": max(cold["driver_mb"], warm["driver_mb"]),
        "host_mb": max(cold["host_mb"], warm["host_mb"]),
        "host_over_model_mb": max(cold["host_mb"], warm["host_mb"]) - small["host_mb"],
    }


# --- what is measured on ---


def _phrases() -> list[str]:
    """Runs of ten words, of 20,000 made of syllables, some much more frequent than others; numbers among them."""
    draw = random.Random(0)
    syllables = [a + b + c for a in "bdfgklmnprstvz" for b in "aeiou" for c in ("", "n", "r", "st")]
    known = ["".join(draw.choices(syllables, k=draw.randint(1, 3))) for _ in range(20_000)]
    weights = [1 / (rank + 10) for rank in range(len(known))]
    numbers = [str(draw.randint(0, 99_999)) for _ in range(1000)]
    return [
        " ".join([*draw.choices(known, weights, k=_WORDS_PER_PHRASE - 1), draw.choice(numbers)])
        for _ in range(_PHRASES)
    ]


def _write_rows(file: Path, rows: int, words: int, phrases: list[str]) -> None:
    """A third of a row's words are its prompt, which begins with the number of the row."""
    draw = random.Random(1)
    prompt, response = max(1, words // 3), words - max(1, words // 3)

    def text(count: int) -> str:
        whole = " ".join(draw.choices(phrases, k=-(-count // _WORDS_PER_PHRASE)))
        return whole if count % _WORDS_PER_PHRASE == 0 else " ".join(whole.split(" ", count)[:count])

    with file.open("w") as stream:
        for row in range(rows):
            question = f"{row} {text(prompt - 1)}" if prompt > 1 else str(row)
            stream.write(json.dumps({"prompt": question, "response": text(response)}) + "\n")


def _make_model(folder: Path, phrases: list[str], positions: int) -> None:
    """The tiny test model with a vocabulary learned from the phrases and room for a row's tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast

    from trainables.testing import CHAT_TEMPLATE, END, PAD, START

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    special = [PAD, START, END]
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(phrases, trainer)
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=PAD, bos_token=START, eos_token=END)
    wrapped.chat_template = CHAT_TEMPLATE
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=positions, tie_word_embeddings=True,
        bos_token_id=wrapped.bos_token_id, eos_token_id=wrapped.eos_token_id, pad_token_id=wrapped.pad_token_id,
    )  # fmt: skip
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    wrapped.save_pretrained(folder)


# --- measuring ---


def _bare(root: Path, rows: int) -> dict[str, float]:
    from trainables.testing import END, START

    turn = f"{START}user\n%s{END}\n{START}assistant\n"
    tokenizer, count = str(root / "model" / "tokenizer.json"), min(rows, BARE_AT_MOST)
    command = [sys.executable, "-c", _BARE, tokenizer, str(root / "all.jsonl"), turn, str(count)]
    environment = os.environ | {"TOKENIZERS_PARALLELISM": "true"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return {name: figure * rows / count for name, figure in json.loads(done.stdout).items()}


def _tune(root: Path, name: str, data: str, words: int) -> dict[str, float]:
    """One run of the command: seconds, of its data phase, the longest time without a line, peaks of memory in MB."""
    spec = {
        "model": str(root / "model"),
        "dtype": "float32",
        "storage_path": str(root / "runs"),
        "name": name,
        "task": {"name": "instruct", "path": str(root / data), "validation_rows": 32}
        | {"max_new_tokens": 8, "max_length": 4 * words + 256},
        "space": {"variant": "lora", "rank": 4, "alpha_ratio": 2, "learning_rate": [0.001, 0.002], "batch_size": 8},
        "train": {"samples": SAMPLES},
        "search": {"searcher": "random", "trials": 1},
        "final": {"enabled": False},
        "resources": {"hosts": 1},
    }
    (root / "spec.json").write_text(json.dumps(spec))
    environment = os.environ | {"RAYLORA_HOME": str(root / ("home-small" if name == "small" else "home"))}
    environment["RAYLORA_DATA_CACHE_GB"] = "1000"
    # Ray's workers stand back behind other processes, which the bare tokenizer does not: on a busy machine that counts.
    environment["RAY_worker_niceness"] = "0"
    environment.pop("RAY_ADDRESS", None)
    command = [sys.executable, "-m", "raylora", "tune", str(root / "spec.json")]
    started = time.monotonic()
    with (root / f"{name}.log").open("w+") as log:
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=log)
        peaks, lines = _watch(process, root / f"{name}.log")
    seconds = time.monotonic() - started
    if process.returncode:
        raise UserError(f"bench data: the run failed: {(lines or [(0.0, 'it said nothing')])[-1][1]}")
    data_lines = [at for at, text in lines if text.startswith("data:")]
    times = [at for at, _ in lines]
    gaps = [after - before for before, after in zip(data_lines, times[times.index(data_lines[0]) + 1 :], strict=False)]
    return {
        "seconds": seconds,
        "data_s": data_lines[-1] - data_lines[0],
        "silence_s": max(gaps, default=0.0),
        **peaks,
    }


def _watch(process: subprocess.Popen[Any], log: Path) -> tuple[dict[str, float], list[tuple[float, str]]]:
    """Peaks of resident memory in MB of the command and of its hosts, and its lines with when they were seen."""
    driver = host = 0.0
    lines: list[tuple[float, str]] = []
    while True:
        over = process.poll() is not None
        text = log.read_text().splitlines()
        lines += [(time.monotonic(), line) for line in text[len(lines) :]]
        if over:
            return {"driver_mb": driver, "host_mb": host}, lines
        driver = max(driver, _peak_mb(process.pid))
        host = max([host, *(_peak_mb(pid) for pid in _hosts(process.pid))])
        time.sleep(_POLL_S)


def _hosts(ancestor: int) -> Iterator[int]:
    """Processes below `ancestor` that hold a model."""
    parents: dict[int, int] = {}
    names: dict[int, bytes] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError, ValueError, IndexError):
                pid = int(folder.name)
                parents[pid] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                names[pid] = (folder / "cmdline").read_bytes()
    for pid, name in names.items():
        above = pid
        while above in parents and above != ancestor:
            above = parents[above]
        if above == ancestor and name.startswith(b"ray::ModelHost"):
            yield pid


def _peak_mb(pid: int) -> float:
    """Highest resident memory of a process so far."""
    with contextlib.suppress(OSError, ValueError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / 1e6
    return 0.0
