"""Fingerprints: what a file, a folder or a set of options *contains*, in 16 hexadecimal digits.

A name or a date says nothing about a content. Large data are hashed once: digests are kept beside them, each with the
size, inode and times (including the change time, which no copy can forge) of the file that it was computed from.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from records.files import plain, replacing

CACHE_NAME = ".fingerprints.json"
# What file managers leave in folders that they only looked at.
_NOT_CONTENT = ("thumbs.db", "desktop.ini")
_DIGITS = 16
_BLOCK = 1 << 22
_CACHE_VERSION = 1


def of_value(value: Any) -> str:
    """Fingerprint of anything that has a JSON form (see `records.files.plain`); the order of keys does not matter."""
    return hashlib.sha256(json.dumps(plain(value), sort_keys=True).encode()).hexdigest()[:_DIGITS]


def of_file(path: Path | str) -> str:
    """Fingerprint of a file's bytes.

    Raises:
        FileNotFoundError, OSError: the file cannot be read.
    """
    digest = hashlib.sha256()
    with Path(path).open("rb") as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()[:_DIGITS]


def of_files(paths: Mapping[str, Path], *, cache_dir: Path | None = None) -> str:
    """Fingerprint of named files: names and contents; links count as what they point at.

    Args:
        paths: name, usually the path relative to a folder, to file.
        cache_dir: folder that keeps the digests; one that cannot be written is no obstacle.
    """
    return of_value(digests(paths, cache_dir=cache_dir))


def of_folder(folder: Path, subfolders: Iterable[str]) -> str:
    """Fingerprint of the files in some subfolders of a folder, hidden ones and the absent subfolders left out."""
    paths = {}
    for name in subfolders:
        if (folder / name).is_dir():
            for file in (folder / name).iterdir():
                if not file.name.startswith(".") and file.name.lower() not in _NOT_CONTENT:
                    paths[f"{name}/{file.name}"] = file
    return of_files(paths, cache_dir=folder)


def digests(paths: Mapping[str, Path], *, cache_dir: Path | None = None) -> dict[str, str]:
    """Fingerprint of every file by name."""
    known = _read_cache(cache_dir)
    states = {name: _state(path) for name, path in paths.items()}
    fresh = {name: known[name][1] for name in paths if name in known and known[name][0] == states[name]}
    stale = [name for name in paths if name not in fresh]
    if stale:
        with ThreadPoolExecutor() as pool:
            fresh.update(zip(stale, pool.map(lambda name: of_file(paths[name]), stale), strict=True))
        _write_cache(cache_dir, known | {name: [states[name], fresh[name]] for name in stale})
    return {name: fresh[name] for name in sorted(paths)}


def _state(path: Path) -> list[int]:
    status = os.stat(path)
    return [status.st_size, status.st_ino, status.st_mtime_ns, status.st_ctime_ns]


def _read_cache(cache_dir: Path | None) -> dict[str, list]:
    if cache_dir is None:
        return {}
    try:
        content = json.loads((cache_dir / CACHE_NAME).read_text())
        return content["files"] if content["version"] == _CACHE_VERSION else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}  # a cache that is absent or damaged is made again


def _write_cache(cache_dir: Path | None, files: dict[str, list]) -> None:
    if cache_dir is None:
        return
    try:
        with replacing(cache_dir / CACHE_NAME) as temporary:
            temporary.write_text(json.dumps({"version": _CACHE_VERSION, "files": files}))
    except OSError:
        pass  # a read-only data set: hashed again next time
