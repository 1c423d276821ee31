"""Files that appear complete or not at all, and JSON whose damage is named."""

from __future__ import annotations

import errno
import fcntl
import json
import math
import os
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np


@contextmanager
def replacing(path: Path | str) -> Iterator[Path]:
    """A temporary path beside `path` whose file takes its place when the block ends well, and vanishes otherwise.

    The content reaches the disk before the name does: after a power cut the old file or the whole new one is there.
    The temporary keeps the file's ending, which image writers look at; errors name the file itself.
    """
    path = Path(path)
    temporary = path.with_name(f".part-{os.getpid()}-{uuid.uuid4().hex[:8]}-{path.name}")
    try:
        yield temporary
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except OSError as error:
        if error.filename is not None and os.fspath(error.filename) == os.fspath(temporary):
            raise type(error)(error.errno, error.strerror, os.fspath(path)) from None
        raise
    finally:
        temporary.unlink(missing_ok=True)


def check_writable(folder: Path | str, what: str) -> None:
    """Finds out before the work, not after it, that files cannot be written into a folder; it is not made here.

    Args:
        what: what the files are, for the message.
    Raises:
        PermissionError: names the folder.
    """
    folder = Path(folder)
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    try:
        if not existing.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, "it is a file" if existing == folder else f"{existing} is a file")
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        raise PermissionError(f"cannot write {what} into {folder}: {error.strerror}") from None


@contextmanager
def locked(path: Path | str) -> Iterator[None]:
    """Holds the lock of `path` (a hidden file beside it) against other processes and threads until the block ends."""
    path = Path(path)
    with path.with_name(f".{path.name}.lock").open("a") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


@contextmanager
def exclusive(path: Path | str, message: str) -> Iterator[None]:
    """As `locked`, but refuses at once: BlockingIOError with `message` when somebody else holds the lock."""
    path = Path(path)
    with path.with_name(f".{path.name}.lock").open("a") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BlockingIOError(message) from None
        yield


def write_json(path: Path | str, value: Any) -> None:
    """Writes JSON atomically; see `plain`."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(plain(value), indent=1, allow_nan=False) + "\n", encoding="utf-8")


def read_json(path: Path | str, what: str) -> Any:
    """Reads a JSON file.

    Args:
        what: what the file is, for the messages.
    Raises:
        FileNotFoundError, ValueError: absent, or not JSON; names the file.
    """
    path = Path(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileNotFoundError(f"{what} {path}: no such file") from None
    except (ValueError, UnicodeDecodeError) as error:
        raise ValueError(f"{what} {path} is not valid JSON: {error}") from None


def plain(value: Any) -> Any:
    """JSON-ready form: dataclasses and mappings as objects, paths as text, what is not finite as null."""
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return value
