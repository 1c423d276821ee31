"""Files of tensors: written whole or not at all, read without unpickling anything else."""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch

from records.files import replacing


def save_tensors(path: Path | str, value: Any) -> None:
    """`torch.save`, atomically.

    Raises:
        OSError: the file cannot be written (a full disk, a read-only folder); what was there before still is.
    """
    # Through memory, because torch.save reports a full disk as an inconsistency of its own archive.
    buffer = io.BytesIO()
    torch.save(value, buffer)
    try:
        with replacing(path) as temporary:
            temporary.write_bytes(buffer.getbuffer())
    except OSError as error:
        raise type(error)(f"cannot write {path}: {error.strerror}") from None


def load_tensors(path: Path | str, what: str) -> Any:
    """`torch.load` onto the CPU with weights_only.

    Args:
        what: what the file is, for the messages.
    Raises:
        FileNotFoundError: no such file.
        ValueError: damaged, or it holds other objects than tensors and plain containers; names the file.
    """
    try:
        if damaged := damaged_entry(Path(path)):
            raise ValueError(f"the checksum of its entry {damaged!r} is wrong")
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise FileNotFoundError(f"{what} not found: {path}") from None
    except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError, ValueError, OSError, zipfile.BadZipFile) as error:
        raise ValueError(f"{what} {path} cannot be read: {first_line(error)}") from None


def damaged_entry(path: Path) -> str | None:
    """An entry of the archive whose checksum is wrong: torch.load looks at none and would give a wrong number."""
    if not zipfile.is_zipfile(path):
        return None  # the format of old versions of torch, or no tensors at all
    with zipfile.ZipFile(path) as archive:
        return archive.testzip()


def first_line(error: BaseException) -> str:
    """Of an error's text, which may have many lines, or none: then the name of its kind."""
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
