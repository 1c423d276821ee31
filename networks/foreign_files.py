"""Files that people mistake for weights, by their first bytes."""

from __future__ import annotations

import zipfile
from pathlib import Path

_HEAD_BYTES = 512
_SIGNATURES = (
    (b"version https://git-lfs", "a Git LFS pointer instead of the file that it stands for (git lfs pull fetches it)"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"\x89HDF", "an HDF5 file"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"{", "a JSON text"),
)


def foreign_kind(path: Path) -> str | None:
    """What a file is that holds neither weights of torch nor safetensors; None where it may be either.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as stream:
        head = stream.read(_HEAD_BYTES)
    if not head:
        return "an empty file"
    if head.lstrip().lower().startswith((b"<!doctype html", b"<html")):
        return "a web page"
    for signature, kind in _SIGNATURES:
        if head.startswith(signature):
            return kind
    return _kind_of_archive(path) if head.startswith(b"PK") else None


def is_torch_archive(path: Path) -> bool:
    """Whether torch.save wrote the file (in its present format)."""
    return path.is_file() and zipfile.is_zipfile(path) and _kind_of_archive(path) is None


def is_safetensors(path: Path) -> bool:
    """Whether the file begins like safetensors: the length of a JSON text, and that."""
    with path.open("rb") as stream:
        head = stream.read(9)
    return len(head) == 9 and head[8:] == b"{" and int.from_bytes(head[:8], "little") < path.stat().st_size


def _kind_of_archive(path: Path) -> str | None:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except Exception:  # damage shows itself in every kind of exception; whoever reads the file on says so
        return None
    if any("/code/" in name for name in names):
        return "a TorchScript archive, whose code is not run"
    if not any(name.endswith("/data.pkl") for name in names):
        return f"a zip archive of other things ({', '.join(names[:3])})"
    return None
