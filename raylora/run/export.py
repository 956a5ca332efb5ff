"""The adapter of a run, or its merged model, for others to load."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from raylora.errors import UserError
from raylora.models import base_for_adapters
from raylora.run.card import write_card
from raylora.run.folder import no_adapter, read_run
from raylora.run.heads import head_of_run
from raylora.spec import Spec
from raylora.spec.paths import writable_folder
from trainables.heads import Head
from trainables.variants.core.tuned import tuned_by


def export(run_dir: str | Path, to: str | Path, *, merge: bool = False, base: str | None = None) -> Path:
    """Copy the run's adapter to `to`, or write the merged model there, with a model card (`README.md`).

    The adapter names a base that is there for whoever opens it on this machine: a hub id, or the folder of the model.

    Args:
        to: A new or empty folder. Plain `peft` loads the adapter from it; with `merge`, plain
            `transformers` loads the model (float32 weights: bf16 would round the update away).
        base: What the adapter names as its base instead.

    Raises:
        UserError: The run has no adapter yet, or `to` is in use.
    """
    folder, spec = read_run(run_dir)
    adapter = folder / "adapter"
    whole = tuned_by(adapter)
    if whole is None and not (adapter / "adapter_config.json").is_file():
        raise UserError.at("RUN_DIR", no_adapter(folder, spec), value=str(folder))
    target = new_folder(to)
    if whole is not None and not merge:
        raise UserError.at(
            "RUN_DIR", f"{folder}/adapter holds whole matrices, as {whole} left them; add --merge", value=str(folder)
        )
    if merge:
        _merge(spec, adapter, target, head_of_run(folder, spec))
    else:
        shutil.copytree(adapter, target, dirs_exist_ok=True)
    named = base or base_for_adapters(spec.model)
    if not merge:
        _name_base(target / "adapter_config.json", named)
    write_card(target, folder, spec, base=named, merged=merge)
    return target


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


def _merge(spec: Spec, adapter: Path, target: Path, head: Head) -> None:
    from raylora.models import resolve
    from trainables.session import load_model
    from trainables.variants.core.export import merge_folder

    model, tokenizer = load_model(resolve(spec.model), "float32", "cpu", head=head)
    merged = merge_folder(model, adapter)
    merged.save_pretrained(target)
    tokenizer.save_pretrained(target)
