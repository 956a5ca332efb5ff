"""Where the rows of file-based tasks come from: Parquet and JSON Lines read by Ray Data, or a hub dataset."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raylora.errors import UserError

if TYPE_CHECKING:
    import ray.data

Open = Callable[[], "ray.data.Dataset"]

SUFFIXES = (".parquet", ".jsonl", ".json")
_STEMS = {"train": ("train",), "validation": ("validation", "valid", "dev"), "test": ("test",)}
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_BYTES_PER_BLOCK = 16 * 2**20


def _is_url(path: str) -> bool:
    return "://" in path


def open_files(files: list[str]) -> ray.data.Dataset:
    """Parquet or JSON Lines files as one Ray dataset, in the order of the names.

    Small files are read as few blocks: each block is a task, and a task costs more than reading it.
    """
    import ray.data

    size = sum(Path(file).stat().st_size for file in files if not _is_url(file))
    blocks = None if any(_is_url(file) for file in files) else max(1, size // _BYTES_PER_BLOCK)
    reader = ray.data.read_parquet if files[0].endswith(".parquet") else ray.data.read_json
    return reader(files, override_num_blocks=blocks)


def _in_folder(folder: Path, split: str) -> list[str]:
    """The files of a split: `train.parquet`, or the parts of one (`train-00000-of-00002.parquet`)."""
    for stem in _STEMS[split]:
        for suffix in SUFFIXES:
            for place in (folder, folder / "data"):
                whole = place / f"{stem}{suffix}"
                if whole.is_file():
                    return [str(whole.resolve())]
                parts = sorted(place.glob(f"{stem}-[0-9]*{suffix}"))
                if parts:
                    return [str(part.resolve()) for part in parts]
    return []


def _first_line(error: BaseException) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0]


def _open_hub(name: str, config: str | None, split: str) -> ray.data.Dataset:
    import datasets
    import ray.data

    try:
        loaded: Any = datasets.load_dataset(name, config, split=split)
    except Exception as error:  # the hub client raises its own, httpx's and the file system's errors
        raise UserError(f"task.path: cannot load {split} of hub dataset {name!r}: {_first_line(error)}") from error
    return ray.data.from_arrow(loaded.with_format("arrow")[:])


def _hub_splits(name: str, config: str | None) -> dict[str, Open]:
    try:
        import datasets
    except ImportError as error:
        raise UserError(
            f"task.path: {name!r} is a hub dataset, which needs the package datasets: pip install datasets"
        ) from error
    try:
        found = datasets.get_dataset_split_names(name, config)
    except Exception as error:  # as above
        raise UserError(
            f"task.path: {name!r} is no local file or folder, and the hub does not give it: "
            f"{_first_line(error)}; give a local path, or check the name and the network"
        ) from error
    return {
        split: partial(_open_hub, name, config, str(stem))
        for split, stems in _STEMS.items()
        for stem in [next((stem for stem in stems if stem in map(str, found)), None)]
        if stem is not None
    }


def open_splits(path: str, config: str | None = None) -> dict[str, Open]:
    """Split name -> callable that opens it as a Ray dataset; nothing is read before a callable is called.

    Args:
        path: a Parquet or JSON Lines file (the train split), a folder with `train` and optionally
            `validation` and `test` files (whole, or in numbered parts, there or under `data/`), the URL of
            one file (`s3://...`), or a hub dataset id `org/name`. A local path must be readable on every
            node.
        config: name of the hub dataset's configuration; unused for files.

    Raises:
        UserError: nothing there, no train split, or a format that is not read.
    """
    if _is_url(path):
        if not path.endswith(SUFFIXES):
            raise UserError(f"task.path: {path!r} must end in one of {', '.join(SUFFIXES)}")
        return {"train": partial(open_files, [path])}
    local = Path(path).expanduser()
    if local.is_file():
        if local.suffix not in SUFFIXES:
            raise UserError(f"task.path: {path!r} must end in one of {', '.join(SUFFIXES)}")
        return {"train": partial(open_files, [str(local.resolve())])}
    if local.is_dir():
        files = {split: _in_folder(local, split) for split in _STEMS}
        if not files["train"]:
            raise UserError(f"task.path: {path!r} has no train.parquet, train.jsonl or train.json")
        return {split: partial(open_files, names) for split, names in files.items() if names}
    if _HUB_ID.fullmatch(path) and not path.startswith("."):
        splits = _hub_splits(path, config)
        if "train" not in splits:
            raise UserError(f"task.path: hub dataset {path!r} has no train split; choose another dataset")
        return splits
    raise UserError(
        f"task.path: {path!r} does not exist; give a Parquet or JSON Lines file, a folder with "
        "train.parquet, or a hub dataset id org/name"
    )
