"""What a spec names outside itself: variants, tasks, searchers, models, files, storage.

Imports no torch, unless the variants have to be asked where they run.
"""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raylora.build import build_task, check_rows
from raylora.errors import UserError
from raylora.run.stored import check_store, is_stored
from raylora.run.tracking import make_trackers
from raylora.run.vllm import vllm_python
from raylora.spec import Spec, load
from raylora.spec.paths import URI, absolute_storage, local_path, why_not_writable
from raylora.spec.text import choose, short

if TYPE_CHECKING:
    from searchers.base import SpaceSearcher

_HUB_ID = re.compile(r"^[A-Za-z0-9][\w.-]*/[\w.-]+$")


def load_checked(path: str | Path, overrides: Iterable[str] = ()) -> Spec:
    """`raylora.spec.load`, and everything that can be known of this machine before an actor starts.

    Raises:
        UserError: one line.
    """
    spec = load(path, overrides)
    check_world(spec)
    return spec


def check_world(spec: Spec) -> None:
    """Everything that can be known before an actor starts. Errors: UserError, one line."""
    check_quantization(spec)
    _check_variants(spec)
    _check_task(spec)
    _check_searcher(spec)
    check_model("model", spec.model)
    _check_kernels(spec)
    _check_compile(spec)
    _check_deepspeed(spec)
    check_engine(spec)
    check_storage(spec.storage_path)
    make_trackers(spec)


def _check_variants(spec: Spec) -> None:
    from trainables.variants import available, declared, get_variant
    from trainables.variants.core.declared import why_not_over

    names = available()
    fields = [("space.variant", name) for name in spec.space.variant]
    fields.append(("default_recipe.variant", spec.default_recipe.variant))
    for field, name in fields:
        if name not in names:
            raise UserError(
                f"{field} = {name!r}: no such variant; {choose(name, names)}", field=field, value=name, allowed=names
            )
        try:
            declared(name)
        except ValueError as error:  # a plug-in that does not load
            raise UserError(f"{field} = {name!r}: {error}", field=field, value=name) from None
        if spec.train.adapter_dtype != "float32" and declared(name).float32_only:
            raise UserError(
                f"train.adapter_dtype = {spec.train.adapter_dtype!r}: {field} = {name!r} computes in float32; "
                "allowed: float32, or another variant",
                field="train.adapter_dtype",
                value=spec.train.adapter_dtype,
                allowed="float32",
            )
        why = why_not_over(declared(name).quantized, None if spec.quantization == "none" else spec.quantization)
        if why is not None:
            raise UserError(f"{field} = {name!r}: {why}, or another variant", field=field, value=name)
    _check_extra(spec)
    if spec.mode == "hosted":
        return
    # Only here: looking a class up imports torch. All variants run on a ModelHost.
    place = spec.resources.strategy
    for field, name in fields:
        variant = get_variant(name)
        runs_on, why = variant.runs_on, variant.not_elsewhere
        if place not in runs_on:
            raise UserError(
                f"{field} = {name!r}: does not run on {place}{f' ({why})' if why else ''}; allowed: "
                f"{', '.join(sorted(runs_on))}, or another variant",
                field=field,
                value=name,
                allowed=sorted(runs_on),
            )


def _check_extra(spec: Spec) -> None:
    """A knob that nothing reads would be searched for nothing."""
    extra = [(f"space.extra.{name}", name) for name in spec.space.extra]
    extra += [(f"default_recipe.extra.{name}", name) for name in spec.default_recipe.extra]
    if not extra:
        return
    from trainables.variants import VARIANTS

    known = sorted({option for variant in VARIANTS.classes().values() for option in variant.options})
    for field, name in extra:
        if name not in known:
            raise UserError(f"{field}: an option of no variant; {choose(name, known)}", field=field, allowed=known)


def _check_task(spec: Spec) -> None:
    from raylora.tasks import TASKS, available

    task = spec.task
    family = task.name.partition("/")[0]
    if family not in TASKS:
        names = available()
        raise UserError(
            f"task.name = {task.name!r}: no such task; {choose(task.name, names)}",
            field="task.name",
            value=task.name,
            allowed=names,
        )
    if task.path is not None:
        _check_path("task.path", task.path)
    made = build_task(spec)
    # Nobody reads test without a final stage.
    check_rows(spec, made, [one for one in made.splits() if spec.final.enabled or one in ("train", "validation")])


def _check_searcher(spec: Spec) -> None:
    from raylora.run.earlier import read_source
    from searchers import SEARCHERS

    search, name = spec.search, spec.search.searcher
    if name not in SEARCHERS:
        names = SEARCHERS.names()
        raise UserError(
            f"search.searcher = {name!r}: no such searcher; {choose(name, names)}",
            field="search.searcher",
            value=name,
            allowed=names,
        )
    try:
        searcher = SEARCHERS[name]
    except ValueError as error:  # a plug-in that does not load
        raise UserError(f"search.searcher = {name!r}: {error}", field="search.searcher", value=name) from None
    _check_wanted(spec, searcher)
    known = searcher.options()
    for option, value in search.options.items():
        if option not in known:
            raise UserError(
                f"search.options.{option} = {short(value)}: {name} has no such option; {choose(option, sorted(known))}",
                field=f"search.options.{option}",
                value=value,
                allowed=sorted(known),
            )
    if search.options:
        try:
            searcher.check(search.options)
        except ValueError as error:
            raise UserError.around("search.options.", error) from None
    for source in search.learn_from:
        local_path("search.learn_from", source)
        read_source("search.learn_from", source)
    if search.prompt is not None:
        local_path("search.prompt", search.prompt)
    of_space = {name: value for name, value in (("prior", search.prior), ("prompt", search.prompt)) if value}
    if of_space:
        try:
            searcher.check(of_space, spec.to_space())
        except ValueError as error:
            raise UserError.around("search.", error) from None
    if "llm" in searcher.wants(search.options) or ("llm" in known and "llm" in search.model_fields_set):
        check_model("search.llm", search.llm)


def _check_wanted(spec: Spec, searcher: type[SpaceSearcher]) -> None:
    """What the spec gives to the search must be of use to its searcher, under its options."""
    from searchers import SEARCHERS

    search = spec.search
    for field, given, want in (
        ("prompt", search.prompt, "prompt"),
        ("prior", search.prior, "prior"),
        ("learn_from", search.learn_from, "learn_from"),
        ("knowledge.curvature", search.knowledge.curvature, "ratios"),
    ):
        if not given or want in searcher.wants(search.options):
            continue
        if want in searcher.wants({}):
            raise UserError(
                f"search.{field} = {short(given)}: {searcher.name} has no use for it with search.options = "
                f"{short(search.options)}; allowed: other options",
                field=f"search.{field}",
                value=given,
            )
        others = [name for name, one in SEARCHERS.classes().items() if want in one.wants({})]
        raise UserError(
            f"search.{field} = {short(given)}: search.searcher = {search.searcher!r} has no use for it; "
            f"allowed: search.searcher = {' or '.join(map(repr, others))}",
            field=f"search.{field}",
            value=given,
        )


def check_model(field: str, name: str) -> None:
    """A bundled alias, a folder with a model in it, or the shape of a hub id, which a download proves."""
    from raylora.models import ALIASES

    aliases = sorted(ALIASES)
    if name in aliases:
        return
    folder = local_path(field, name)
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise UserError(
                f"{field} = {name!r}: the folder has no config.json; allowed: a saved transformers model",
                field=field,
                value=name,
            )
        return
    if not _HUB_ID.match(name):
        kind = "no such folder" if _looks_local(name) else "no such model"
        raise UserError(
            f"{field} = {name!r}: {kind}; {choose(name, aliases)}, a local folder, a hub id (org/name)",
            field=field,
            value=name,
            allowed=aliases,
        )


def _check_path(field: str, name: str) -> None:
    if URI.match(name) or local_path(field, name).exists():
        return
    if _looks_local(name) or not _HUB_ID.match(name):
        raise UserError(
            f"{field} = {name!r}: no such file or folder; allowed: a file, a folder, a hub id (org/name)",
            field=field,
            value=name,
        )


def _looks_local(name: str) -> bool:
    return name.startswith(("/", ".", "~")) or Path(name).suffix in (".parquet", ".jsonl", ".json", ".gguf")


def _check_kernels(spec: Spec) -> None:
    """What the GPUs and their nodes have is seen by the hosts; that there is none is seen here."""
    if spec.resources.gpus_per_host:
        return
    if spec.train.attention == "flash":
        raise UserError(
            "train.attention = 'flash': it needs a GPU; allowed: auto, sdpa, eager, or gpus_per_host above 0",
            field="train.attention",
            value="flash",
            allowed=["auto", "sdpa", "eager"],
        )
    if spec.train.liger is True:
        raise UserError(
            "train.liger = true: it needs a GPU; allowed: auto, false, or gpus_per_host above 0",
            field="train.liger",
            value=True,
            allowed=["auto", False],
        )


def _check_compile(spec: Spec) -> None:
    if not spec.train.compile:
        return

    def refused(told: str) -> UserError:
        return UserError(f"train.compile = true: {told}", field="train.compile", value=True, allowed=False)

    resources = spec.resources
    if resources.strategy != "ddp":
        raise refused(
            f"resources.strategy = {resources.strategy!r} puts weights together and parts them within what would be "
            "compiled; allowed: false, or strategy = 'ddp'"
        )
    if resources.pack != 1:
        raise refused(
            f"resources.pack = {resources.pack!r} has another program for each set of trials in a pass; allowed: "
            "false, or pack = 1"
        )
    if resources.gpus_per_host:
        return
    # Only here: it imports torch.
    import torch

    from trainables.compiling import why_no_compiler

    why = why_no_compiler(torch.device("cpu"))
    if why is not None:
        raise refused(f"{why}, or set it to false")


def check_quantization(spec: Spec) -> None:
    """What quantises has to be there. Errors: UserError, one line."""
    if spec.quantization != "none" and importlib.util.find_spec("bitsandbytes") is None:
        raise UserError(
            f"quantization = {spec.quantization!r}: bitsandbytes is not installed; pip install 'raylora[quantization]'",
            field="quantization",
            value=spec.quantization,
        )


def _check_deepspeed(spec: Spec) -> None:
    if spec.resources.strategy != "deepspeed":
        return
    from clusters import deepspeed_config

    given = spec.resources.deepspeed_config or "zero2"
    local_path("resources.deepspeed_config", given)

    def refused(told: str) -> UserError:
        field = "resources.deepspeed_config"
        return UserError(f"{field} = {given!r}: {told}", field=field, value=given)

    try:
        config = json.loads(deepspeed_config(given).read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise refused(f"not valid JSON, line {error.lineno}: {error.msg}") from None
    except (ValueError, OSError) as error:
        raise refused(str(error)) from None
    stage = config.get("zero_optimization", {}).get("stage", 0) if isinstance(config, dict) else None
    if stage not in (0, 1, 2, 3):
        raise refused(f"ZeRO stage {stage}; allowed: stage 0, 1, 2 or 3")
    _check_offload(config.get("zero_optimization", {}), refused)
    if importlib.util.find_spec("deepspeed") is None:
        raise UserError(
            "resources.strategy = 'deepspeed': not installed; pip install 'raylora[deepspeed]'",
            field="resources.strategy",
            value="deepspeed",
        )


def _check_offload(zero: dict[str, Any], refused: Callable[[str], UserError]) -> None:
    """Where ZeRO puts what does not fit: on the CPU, or on a disk by an operator that is compiled on first use."""
    for name in ("offload_param", "offload_optimizer"):
        told = zero.get(name) or {}
        device = told.get("device", "none")
        if device not in ("none", "cpu", "nvme"):
            raise refused(f"{name}.device = {device!r}; allowed: none, cpu, nvme")
        if zero.get("stage", 0) != 3 and (device == "nvme" or (name == "offload_param" and device == "cpu")):
            raise refused(f"{name}.device = {device!r} with ZeRO stage {zero.get('stage', 0)}; allowed: stage 3")
        if device != "nvme":
            continue
        if not Path(str(told.get("nvme_path"))).is_dir():
            raise refused(f"{name}.nvme_path = {told.get('nvme_path')!r}: no such folder; name one on the disk to use")
        if shutil.which("g++") is None:
            raise refused(f"{name}.device = 'nvme': its operator is compiled on first use; install g++ and libaio")


def check_engine(spec: Spec) -> None:
    """What writes the answers has to be there. Errors: UserError, one line."""
    if spec.evaluate.engine == "vllm":
        vllm_python("evaluate.engine")


def check_storage(path: str) -> None:
    """Makes the folder and writes a file there; of an address, puts an object into the store."""
    if is_stored(path):
        check_store(path)
        return
    local_path("storage_path", path)
    place = absolute_storage(path)
    problem = why_not_writable(Path(place))
    if problem:
        raise UserError(
            f"storage_path = {path!r}: cannot write there ({problem}); allowed: a folder you can write to",
            field="storage_path",
            value=path,
        )
