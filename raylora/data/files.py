"""Which files hold which split: of a folder, a glob, a URL or a hub dataset."""

from __future__ import annotations

import atexit
import glob
import json
import re
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from raylora.data.readers import FORMATS, allowed_suffixes, format_of, is_url
from raylora.errors import UserError

SPLITS = ("train", "validation", "test")
_WORDS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev", "development"),
    "test": ("test", "testing"),
}
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
# Files that describe data rather than hold it.
_NO_DATA = {"dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json", "config.json", "package.json"}


def find_splits(path: str, name: str | None = None, *, train: bool = True) -> dict[str, list[str]]:
    """Split -> its files, absolute, in the order of their names.

    Args:
        path: a file, a glob, a folder or a URL. In a folder the names of files and folders say which split they are
            (`train.jsonl`, `data/test-00000-of-00001.parquet`, `dev/part1.csv`); where no name says so, all of it is
            train. Folders that `datasets` saved (`save_to_disk`) are read too.
        name: a sub-folder that holds the data.
        train: whether there must be a train split.

    Raises:
        UserError: nothing there that can be read, or no train split.
    """
    if is_url(path):
        if format_of(path) is None:
            raise UserError.at("task.path", f"{path!r} must end in one of {allowed_suffixes()}", value=path)
        return {"train": [path]}
    local = Path(path).expanduser()
    if local.is_file():
        if format_of(path) is None:
            raise UserError.at("task.path", f"{path!r} must end in one of {allowed_suffixes()}", value=path)
        return {"train": [str(local.resolve())]}
    if local.is_dir():
        found = _in_folder(local / name if name and (local / name).is_dir() else local, path)
        return _with_train(found, path) if train else found
    if any(mark in path for mark in "*?["):
        files = [str(Path(found).resolve()) for found in sorted(glob.glob(str(local), recursive=True))]
        files = [file for file in files if format_of(file) and Path(file).is_file()]
        if files:
            return _by_names(files, Path("/")) if _several_splits(files) else {"train": files}
        raise UserError.at(
            "task.path", f"{path!r} matches no file that ends in one of {allowed_suffixes()}", value=path
        )
    raise UserError.at(
        "task.path",
        f"{path!r} does not exist; give a file ({', '.join(FORMATS)}), a folder, or a hub dataset id org/name",
        value=path,
        allowed=FORMATS,
    )


def _several_splits(files: Sequence[str]) -> bool:
    return len({_split_of(Path(file).name) for file in files}) > 1


def _in_folder(folder: Path, path: str) -> dict[str, list[str]]:
    if (folder / "dataset_dict.json").is_file():
        names = json.loads((folder / "dataset_dict.json").read_text())["splits"]
        saved = {name: _saved(folder / name) for name in names}
        return {_split_of(name) or name: files for name, files in saved.items()}
    if (folder / "state.json").is_file():
        return {"train": _saved(folder)}
    files = [
        str(file.resolve())
        for file in sorted(folder.rglob("*"))
        if file.is_file() and format_of(file.name) and file.name not in _NO_DATA and not _hidden(file, folder)
    ]
    if not files:
        raise UserError.at(
            "task.path",
            f"{path!r} has no train.parquet, train.jsonl or train.json, nor another file that ends in one "
            f"of {allowed_suffixes()}",
            value=path,
        )
    return _by_names(files, folder.resolve())


def _saved(folder: Path) -> list[str]:
    """The Arrow files of a dataset that `save_to_disk` wrote."""
    state = json.loads((folder / "state.json").read_text())
    return [str((folder / file["filename"]).resolve()) for file in state["_data_files"]]


def _hidden(file: Path, folder: Path) -> bool:
    return any(part.startswith((".", "__")) for part in file.relative_to(folder).parts)


def _with_train(splits: dict[str, list[str]], path: str) -> dict[str, list[str]]:
    if "train" not in splits:
        raise UserError.at(
            "task.path",
            f"{path!r} has {', '.join(splits)} but no train split; name a source with task.train",
            value=path,
            allowed=list(splits),
        )
    return splits


def _split_of(name: str) -> str | None:
    """The split that a name speaks of, as a word of its own: `my_train_2.csv`, `data-dev`."""
    words = re.split(r"[^a-z]+", name.lower())
    return next((split for split, marks in _WORDS.items() if any(mark in words for mark in marks)), None)


def _by_names(files: Sequence[str], folder: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for file in files:
        place = Path(file)
        inside = place.relative_to(folder).parts if place.is_relative_to(folder) else (place.name,)
        split = next(filter(None, map(_split_of, reversed(inside))), None)
        if split is not None:
            found.setdefault(split, []).append(file)
    return {split: _one_format(_without_selections(split, found[split])) for split in SPLITS if split in found} or {
        "train": _one_format(list(files))
    }


def _without_selections(split: str, files: list[str]) -> list[str]:
    """Without those that are named as a number of rows, `test500.parquet`, where the split itself is there."""
    stems = {file: Path(file).name.partition(".")[0].lower() for file in files}
    whole = {(Path(file).parent, stem) for file, stem in stems.items() if stem in _WORDS[split]}
    return [
        file
        for file, stem in stems.items()
        if stem in _WORDS[split] or (Path(file).parent, stem.rstrip("0123456789")) not in whole
    ]


def _one_format(files: list[str]) -> list[str]:
    """Without copies of a file in another format (`train.parquet` beside `train.jsonl`): the first of `FORMATS`."""
    order = list(FORMATS.values())
    best: dict[str, str] = {}
    for file in files:
        stem = str(Path(file).with_name(Path(file).name.partition(".")[0]))
        known = format_of(file)
        kept = format_of(best[stem]) if stem in best else None
        if known and (kept is None or order.index(known[0]) < order.index(kept[0])):
            best[stem] = file
    return [file for file in files if file in best.values()]


# --- hub ---


def is_hub_id(path: str) -> bool:
    """Whether this is the shape of a hub id, and nothing local has that name."""
    return bool(_HUB_ID.fullmatch(path)) and not path.startswith((".", "~")) and not Path(path).exists()


def hub_package(path: str) -> Any:
    """The package `datasets`. Raises UserError where it is missing."""
    try:
        import datasets
    except ImportError as error:
        raise UserError.at(
            "task.path",
            f"{path!r} is a hub dataset, which needs the package datasets: pip install datasets",
            value=path,
        ) from error
    return datasets


def first_line(error: BaseException) -> str:
    """The first line of what an error says; its type where it says nothing."""
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0]


def hub_splits(path: str, name: str | None, *, train: bool = True) -> dict[str, str]:
    """Our split -> the hub's name of it.

    Raises:
        UserError: the hub does not give the dataset, or it has no train split.
    """
    try:
        found = [str(split) for split in hub_package(path).get_dataset_split_names(path, name)]
    except UserError:
        raise
    except Exception as error:  # the hub client raises its own, httpx's and the file system's errors
        raise UserError.at(
            "task.path",
            f"{path!r} is no local file or folder, and the hub does not give it: {first_line(error)}; "
            "give a local path, or check the name and the network",
            value=path,
        ) from error
    splits: dict[str, str] = {}
    for split in found:
        splits.setdefault(_split_of(split) or split, split)
    if train and "train" not in splits:
        raise UserError.at("task.path", f"hub dataset {path!r} has no train split; choose another dataset", value=path)
    return splits


def hub_files(path: str, name: str | None, split: str) -> list[str]:
    """The Arrow files of a split, by the hub's name of it, in the hub's own cache.

    Raises:
        UserError: the hub does not give it.
    """
    try:
        loaded: Any = hub_package(path).load_dataset(path, name, split=split)
    except UserError:
        raise
    except Exception as error:  # as above
        raise UserError.at(
            "task.path", f"cannot load {split} of hub dataset {path!r}: {first_line(error)}", value=path
        ) from error
    files = [file["filename"] for file in loaded.cache_files]
    return files or [_kept_in_memory(loaded)]


def _kept_in_memory(loaded: Any) -> str:
    """A file of a dataset that has none, until this process ends."""
    folder = tempfile.mkdtemp(prefix="raylora-hub-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    file = str(Path(folder) / "rows.parquet")
    loaded.to_parquet(file)
    return file
