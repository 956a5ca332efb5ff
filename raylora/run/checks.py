"""What a spec names outside itself: variants, tasks, searchers, models, files, storage.

Imports no torch, unless the variants have to be asked where they run.
"""

from __future__ import annotations

import importlib.util
import inspect
import json
import re
from collections.abc import Iterable
from pathlib import Path

from raylora.build import build_task
from raylora.errors import UserError
from raylora.spec import Spec, load
from raylora.spec.paths import URI, absolute_storage, why_not_writable
from raylora.spec.text import choose, short

_HUB_ID = re.compile(r"^[A-Za-z0-9][\w.-]*/[\w.-]+$")

# What experiment gives every searcher itself.
_GIVEN = {"self", "space", "metric", "mode", "seed", "worst", "points_to_evaluate"}


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
    _check_variants(spec)
    _check_task(spec)
    _check_searcher(spec)
    check_model("model", spec.model)
    if spec.search.searcher == "language":
        from searchers.language import reads_language

        if "llm" in spec.search.model_fields_set or reads_language(spec.search.options):
            check_model("search.llm", spec.search.llm)
    _check_deepspeed(spec)
    check_storage(spec.storage_path)


def _check_variants(spec: Spec) -> None:
    from trainables.variants import available, get_variant

    names = available()
    fields = [("space.variant", name) for name in spec.space.variant]
    fields.append(("default_recipe.variant", spec.default_recipe.variant))
    for field, name in fields:
        if name not in names:
            raise UserError(f"{field} = {name!r}: no such variant; {choose(name, names)}")
    _check_extra(spec)
    if spec.mode == "hosted":
        return
    # Only here: looking a class up imports torch. All variants run on a ModelHost.
    place = spec.resources.strategy
    for field, name in fields:
        runs_on = get_variant(name).runs_on
        if place not in runs_on:
            raise UserError(
                f"{field} = {name!r}: does not run on {place}; allowed: {', '.join(sorted(runs_on))}, or "
                "another variant"
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
            raise UserError(f"{field}: an option of no variant; {choose(name, known, limit=40)}")


def _check_task(spec: Spec) -> None:
    from raylora.tasks import TASKS, available

    task = spec.task
    family = task.name.partition("/")[0]
    if family not in TASKS:
        raise UserError(f"task.name = {task.name!r}: no such task; {choose(task.name, available())}")
    if task.path is not None:
        _check_path("task.path", task.path)
    build_task(spec)


def _check_searcher(spec: Spec) -> None:
    from searchers import SEARCHERS

    name = spec.search.searcher
    if name not in SEARCHERS:
        raise UserError(f"search.searcher = {name!r}: no such searcher; {choose(name, SEARCHERS.names())}")
    _check_knowledge(spec)
    if not spec.search.options:
        return
    searcher = SEARCHERS[name]
    parameters = inspect.signature(searcher).parameters.values()
    known = {p.name for p in parameters if p.name not in _GIVEN and p.kind is not p.VAR_KEYWORD}
    known |= set(getattr(searcher, "option_names", ()))
    for option, value in spec.search.options.items():
        if option not in known:
            raise UserError(
                f"search.options.{option} = {short(value)}: {name} has no such option; "
                f"{choose(option, sorted(known), limit=20)}"
            )
    if name == "language":
        from searchers.language import LanguageBOSearch

        try:
            LanguageBOSearch(**spec.search.options)
        except (TypeError, ValueError) as error:
            raise UserError(f"search.options.{error}") from None


def _check_knowledge(spec: Spec) -> None:
    """`search.prompt`, `prior`, `learn_from` and `knowledge`: what only the language searcher can use."""
    from raylora.run.earlier import read_source

    search = spec.search
    for field, given in (
        ("prompt", search.prompt),
        ("prior", search.prior),
        ("learn_from", search.learn_from),
        ("knowledge.curvature", search.knowledge.curvature),
    ):
        if given and search.searcher != "language":
            raise UserError(
                f"search.{field} = {short(given)}: search.searcher = {search.searcher!r} has no use for it; "
                "allowed: search.searcher = 'language'"
            )
    if search.knowledge.curvature and search.options:
        from searchers.language import PRESETS

        preset = PRESETS.get(str(search.options.get("preset", "default")), {})
        if not search.options.get("knowledge", preset.get("knowledge", True)):
            raise UserError(
                "search.knowledge.curvature = True: the search uses no knowledge; "
                "allowed: search.options.knowledge = true"
            )
    for source in search.learn_from:
        read_source("search.learn_from", source)
    if not search.prior and search.prompt is None:
        return
    from searchers.surrogate.knowledge import Knowledge
    from searchers.surrogate.reading.prompt import Prompt

    try:
        Knowledge(spec.to_space(), beliefs=search.prior)
        if search.prompt is not None:
            Prompt.from_file(spec.to_space(), search.prompt)
    except ValueError as error:
        raise UserError(f"search.{error}") from None


def check_model(field: str, name: str) -> None:
    """A bundled alias, a folder with a model in it, or the shape of a hub id, which a download proves."""
    from raylora.models import ALIASES

    aliases = sorted(ALIASES)
    if name in aliases:
        return
    folder = Path(name).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise UserError(f"{field} = {name!r}: the folder has no config.json; allowed: a saved transformers model")
        return
    if not _HUB_ID.match(name):
        kind = "no such folder" if _looks_local(name) else "no such model"
        raise UserError(f"{field} = {name!r}: {kind}; {choose(name, aliases)}, a local folder, a hub id (org/name)")


def _check_path(field: str, name: str) -> None:
    if Path(name).expanduser().exists() or URI.match(name):
        return
    if _looks_local(name) or not _HUB_ID.match(name):
        raise UserError(f"{field} = {name!r}: no such file or folder; allowed: a file, a folder, a hub id (org/name)")


def _looks_local(name: str) -> bool:
    return name.startswith(("/", ".", "~")) or Path(name).suffix in (".parquet", ".jsonl", ".json", ".gguf")


def _check_deepspeed(spec: Spec) -> None:
    if spec.resources.strategy != "deepspeed":
        return
    from clusters import deepspeed_config

    given = spec.resources.deepspeed_config or "zero2"
    field = f"resources.deepspeed_config = {given!r}"
    try:
        config = json.loads(deepspeed_config(given).read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise UserError(f"{field}: not valid JSON, line {error.lineno}: {error.msg}") from None
    except (ValueError, OSError) as error:
        raise UserError(f"{field}: {error}") from None
    stage = config.get("zero_optimization", {}).get("stage", 0) if isinstance(config, dict) else None
    if stage not in (0, 1, 2):
        raise UserError(
            f"{field}: ZeRO stage {stage}; allowed: stage 0, 1 or 2 (evaluation needs the base model whole)"
        )
    if importlib.util.find_spec("deepspeed") is None:
        raise UserError("resources.strategy = 'deepspeed': not installed; pip install 'raylora[deepspeed]'")


def check_storage(path: str) -> None:
    """Makes the folder and writes a file there. URIs are taken at their word: the first write proves them."""
    place = absolute_storage(path)
    if URI.match(place):
        return
    problem = why_not_writable(Path(place))
    if problem:
        raise UserError(f"storage_path = {path!r}: cannot write there ({problem}); allowed: a folder you can write to")
