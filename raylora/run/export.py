"""The adapter of a run, or its merged model, for others to load."""

from __future__ import annotations

import shutil
from pathlib import Path

from raylora.errors import UserError
from raylora.run.folder import read_run
from trainables.variants.core.tuned import tuned_by


def export(run_dir: str | Path, to: str | Path, *, merge: bool = False) -> Path:
    """Copy the run's adapter to `to`, or write the merged model there.

    Args:
        to: A new or empty folder. Plain `peft` loads the adapter from it; with `merge`, plain
            `transformers` loads the model (float32 weights: bf16 would round the update away).

    Raises:
        UserError: The run has no adapter yet, or `to` is in use.
    """
    folder, spec = read_run(run_dir)
    adapter = folder / "adapter"
    whole = tuned_by(adapter)
    if whole is None and not (adapter / "adapter_config.json").is_file():
        raise UserError(f"RUN_DIR: {folder} has no adapter/ yet; finish the run with `raylora resume {folder}`")
    target = Path(to).expanduser()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UserError(f"--to: {target} exists and is not an empty folder; name a new one")
    if whole is not None and not merge:
        raise UserError(f"RUN_DIR: {folder}/adapter holds whole matrices, as {whole} left them; add --merge")
    if not merge:
        shutil.copytree(adapter, target, dirs_exist_ok=True)
        return target
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from raylora.models import resolve
    from trainables.variants.core.export import merge_folder

    base = resolve(spec.model)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    merged = merge_folder(model, adapter)
    merged.save_pretrained(target)
    AutoTokenizer.from_pretrained(base).save_pretrained(target)
    return target
