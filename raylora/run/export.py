"""The adapter of a run, its merged model, or GGUF files of either, for others to load."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from raylora.errors import UserError
from raylora.models import base_for_adapters, resolve
from raylora.run.card import write_card
from raylora.run.folder import no_adapter, read_run
from raylora.run.heads import head_of_run
from raylora.run.llamacpp.gguf import TYPES, converter, write_gguf
from raylora.run.portable import PROGRAMS, look_at, write_uniform
from raylora.run.quantized import difference
from raylora.run.stored import fetch_results
from raylora.run.vllm import is_vllm_here, refusals
from raylora.spec import Spec
from raylora.spec.paths import writable_folder
from trainables.heads import LANGUAGE, Head
from trainables.variants.core.tuned import tuned_by

Format = Literal["peft", "merged", "gguf"]
FORMATS: tuple[Format, ...] = ("peft", "merged", "gguf")


def export(
    run_dir: str | Path,
    to: str | Path,
    *,
    format: Format | None = None,
    merge: bool = False,
    base: str | None = None,
    kind: str | None = None,
    check: str | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Path:
    """Write the run's adapter, its merged model or GGUF files to `to`, with a model card (`README.md`).

    The adapter names a base that is there for whoever opens it on this machine: a hub id, or the folder of the model.
    Where the run's base was quantised, `say` and the card tell what the full-precision one makes of the adapter.

    Args:
        to: A new or empty folder. Plain `peft` loads the adapter from it; of `merged`, plain `transformers` loads the
            model (float32 weights: bf16 would round the update away); of `gguf`, llama.cpp loads `base.gguf` with
            `adapter.gguf`, or `model.gguf` where it cannot have the adapter.
        format: one of `FORMATS`; default: `merged` with `merge`, else `peft`.
        merge: with `gguf`: the merged model as one file.
        base: What the adapter names as its base instead.
        kind: of the weights of a GGUF file: f32, f16, bf16, q8_0; default: as the base has them, float32 where merged.
        check: a program that is to have the adapter, `vllm` or `llamacpp`.
        say: told what is written otherwise than was asked for, and why.

    Raises:
        UserError: The run has no adapter yet, `to` is in use, llama.cpp's converters are not there or do not take the
            model, or the program that was named cannot have the adapter.
    """
    folder, spec = read_run(run_dir)
    fetch_results(folder)
    form = _form(format, merge, kind, check)
    adapter = folder / "adapter"
    whole = tuned_by(adapter)
    if whole is None and not (adapter / "adapter_config.json").is_file():
        raise UserError.at("RUN_DIR", no_adapter(folder, spec), value=str(folder))
    if whole is not None and form == "peft":
        new_folder(to)
        raise UserError.at(
            "RUN_DIR", f"{folder}/adapter holds whole matrices, as {whole} left them; add --merge", value=str(folder)
        )
    uniform = check is not None and _has_to_be_uniform(adapter, check, say)
    if form == "gguf":
        _check_gguf(spec)
    target = new_folder(to)
    head, named = head_of_run(folder, spec), base or base_for_adapters(spec.model)
    files: list[Path] = []
    if form == "peft":
        shutil.copytree(adapter, target, dirs_exist_ok=True)
        if uniform:
            write_uniform(adapter, target)
        _name_base(target / "adapter_config.json", named)
    elif form == "merged":
        merge_to(target, resolve(spec.model), adapter, head)
    else:
        model = resolve(spec.model)
        files = write_gguf(
            target, model, adapter, lambda place: merge_to(place, model, adapter), merge=merge, kind=kind, say=say
        )
    apart = difference(folder, spec, adapter)
    if apart is not None:
        say(apart.told())
    write_card(
        target, folder, spec, base=named, merged=form == "merged", gguf=[file.name for file in files], apart=apart
    )
    return target


def _form(format: Format | None, merge: bool, kind: str | None, check: str | None) -> Format:
    """The format that is meant, once what is asked for goes together."""
    form: Format = format or ("merged" if merge else "peft")
    if form not in FORMATS:
        raise UserError.at("--format", f"{form}; allowed: {', '.join(FORMATS)}", value=form, allowed=FORMATS)
    if merge and form == "peft":
        raise UserError.at("--merge", "not with --format peft; allowed: merged, gguf", value=True)
    if kind is not None and form != "gguf":
        raise UserError.at("--type", f"{kind}: goes with --format gguf, not with {form}", value=kind)
    if kind is not None and kind not in TYPES:
        raise UserError.at("--type", f"{kind}; allowed: {', '.join(TYPES)}", value=kind, allowed=TYPES)
    if check is not None and form != "peft":
        raise UserError.at("--check", f"{check}: goes with --format peft; {form} is no adapter to check", value=check)
    if check is not None and check not in PROGRAMS:
        raise UserError.at("--check", f"{check}; allowed: {', '.join(PROGRAMS)}", value=check, allowed=list(PROGRAMS))
    return form


def _has_to_be_uniform(adapter: Path, program: str, say: Callable[[str], None]) -> bool:
    """Whether a program can have the adapter with one rank and one alpha alone.

    Raises:
        UserError: it cannot have it at all.
    """
    look = look_at(adapter, program)
    if look.needs == "merge":
        raise UserError.at(
            "--check", f"{program}: {look.why}; --format merged writes a model that it can have", value=program
        )
    if look.needs == "uniform":
        say(f"{look.why}: written with one rank and one alpha, which computes the same")
    if program == "vllm":
        _ask_vllm(adapter, uniform=look.needs == "uniform")
    return look.needs == "uniform"


def _ask_vllm(adapter: Path, *, uniform: bool) -> None:
    """Has vLLM itself look at the adapter as it will be written, where vLLM is here. Raises UserError if it refuses."""
    if not is_vllm_here():
        return
    with tempfile.TemporaryDirectory(prefix="raylora-check-") as work:
        (told,) = refusals([write_uniform(adapter, Path(work) / "adapter") if uniform else adapter], "--check")
    if told:
        raise UserError.at(
            "--check", f"vllm: it refuses the adapter: {told} --format merged writes a model that it can have"
        )


def _check_gguf(spec: Spec) -> None:
    if spec.task.head != "language":
        raise UserError.at(
            "--format",
            f"gguf: llama.cpp writes text, and the run has a head for {spec.task.head}; allowed: peft, merged",
            value="gguf",
        )
    converter()


def new_folder(to: str | Path, option: str = "--to") -> Path:
    """A folder to write to, made. Raises UserError where there is something in it, or it cannot be made."""
    target = Path(to).expanduser()
    if os.path.exists(target) and (not target.is_dir() or any(target.iterdir())):
        raise UserError.at(option, f"{target} exists and is not an empty folder; name a new one", value=str(target))
    writable_folder(target, f"{option} {to}")
    return target


def _name_base(file: Path, base: str) -> None:
    config = {**json.loads(file.read_text()), "base_model_name_or_path": base}
    file.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def merge_to(
    target: Path, model: Path, adapter: Path | None, head: Head = LANGUAGE, tokenizer: Path | None = None
) -> None:
    """Write the adapter of a folder merged into its base, in float32, for plain `transformers`.

    Args:
        model: folder of the base.
        tokenizer: folder of the adapter's own tokenizer, if it has one.
    """
    from trainables.scored import make_room
    from trainables.session import load_model
    from trainables.variants.core.export import merge_folder

    loaded, own = load_model(model, "float32", "cpu", tokenizer or "", head)
    make_room(loaded, own)
    merged = loaded if adapter is None else merge_folder(loaded, adapter)
    merged.save_pretrained(target)
    own.save_pretrained(target)
