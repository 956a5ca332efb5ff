"""`raylora serve`: what is to be served, by which engine, where."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from raylora.errors import UserError
from raylora.run.folder import read_run
from raylora.run.serve import listening, with_llamacpp, with_vllm
from raylora.run.serve.listening import Address
from raylora.run.stored import is_stored
from raylora.run.subject import CONFIG, Subject, check_adapter, find_subject
from raylora.spec import Spec

ENGINES = ("transformers", "vllm", "llamacpp")


def serve(
    target: str,
    told: Callable[[str], None],
    *,
    engine: str = "transformers",
    host: str = listening.LOCAL[0],
    port: int = 8000,
    key: str | None = None,
    name: str | None = None,
    base: str | None = None,
    dtype: str | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> None:
    """Serve a run's adapter, any adapter of PEFT, or a model, until Ctrl-C.

    Args:
        target: a run's folder, an adapter's folder or hub id, or a model; with `llamacpp` also a folder that
            `raylora export --format gguf` wrote.
        told: called with the address once it listens.
        engine: one of `ENGINES`.
        key: what clients have to show.
        name: of the model, as clients ask for it; default: that of the folder.
        base: the base model of an adapter, instead of the one that it names.
        dtype: of the base; default: the run's, or what the device computes in.
        say: told what goes on meanwhile.

    Raises:
        UserError: one line.
    """
    if engine not in ENGINES:
        raise UserError.at("--engine", f"{engine}; allowed: {', '.join(ENGINES)}", value=engine, allowed=ENGINES)
    listening.check_host(host, key)
    address = Address(name or _name(target), host, port, key, told)
    if engine == "llamacpp" and (files := with_llamacpp.exported(Path(target).expanduser())):
        with_llamacpp.run_files(files, address)
        return
    subject = find_subject(target, base)
    spec = None if subject.run is None else read_run(subject.run)[1]
    _check_head(subject, spec)
    held_in = dtype or (spec.dtype if spec else "auto")
    if engine == "transformers":
        from raylora.run.serve import with_transformers  # with torch, which those who are refused need not wait for

        with_transformers.run(subject, spec, address, held_in, say)
        return
    if spec is not None and spec.task.system:
        say(f"{engine} leaves the run's system message to the client; send it with each conversation")
    run = with_vllm.run if engine == "vllm" else with_llamacpp.run
    run(subject, address, held_in, say)


def _name(target: str) -> str:
    """Of a folder and of a run in a store its own name, of anything else what it is called."""
    if is_stored(target):
        return target.rstrip("/").rpartition("/")[2]
    folder = Path(target).expanduser()
    return folder.resolve().name if folder.exists() else target


def _check_head(subject: Subject, spec: Spec | None) -> None:
    """Refuses classifiers, which write no answers, and adapters that PEFT alone can decode with."""
    file = None if subject.adapter is None else subject.adapter / CONFIG
    task = json.loads(file.read_text(encoding="utf-8")).get("task_type") if file and file.is_file() else None
    head = spec.task.head if spec is not None else "classifier" if task == "SEQ_CLS" else "language"
    if head != "language":
        raise UserError.at(
            "RUN",
            f"{subject.name} has a classification head, which writes no text; `raylora evaluate` scores it, and "
            "raylora.open_run(RUN).load() answers in Python",
            value=subject.name,
        )
    check_adapter(subject)
