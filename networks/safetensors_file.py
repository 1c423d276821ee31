"""Weights as safetensors: named tensors that hold no code, with a few texts beside them.

Format: https://huggingface.co/docs/safetensors; it has no checksum, so files of ours carry one among their texts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import torch

from networks.foreign_files import is_torch_archive
from records.files import replacing

SUFFIX = ".safetensors"
_CHECKSUM = "sha256"


def read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a file, on the CPU.

    Raises:
        ValueError: not such a file, or a damaged one; names it. Or the package is not installed.
    """
    tensors, texts = _opened(path, with_tensors=True)
    if texts.get(_CHECKSUM, _digest(tensors)) != _digest(tensors):
        raise ValueError(f"{path} is damaged: the checksum of its tensors is wrong")
    return tensors


def read_texts(path: Path) -> dict[str, str]:
    """The texts of a file, without its tensors; raises as `read_safetensors`."""
    return _opened(path, with_tensors=False)[1]


def write_safetensors(path: Path, tensors: Mapping[str, torch.Tensor], texts: Mapping[str, str]) -> None:
    """Writes a file; it appears complete or not at all.

    Raises:
        ValueError: the package is not installed.
        OSError: the file cannot be written; names it.
    """
    _package()
    from safetensors.torch import save

    plain = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    # "format" tells other programs which library's tensors these are.
    content = save(plain, metadata={"format": "pt", **texts, _CHECKSUM: _digest(plain)})
    try:
        with replacing(path) as temporary:
            temporary.write_bytes(content)
    except OSError as error:
        raise type(error)(f"cannot write {path}: {error.strerror}") from None


def _package() -> ModuleType:
    try:
        import safetensors
    except ImportError:
        raise ValueError(f"{SUFFIX} files need the package safetensors: pip install safetensors") from None
    return safetensors


def _opened(path: Path, *, with_tensors: bool) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    package = _package()
    try:
        with package.safe_open(path, framework="pt", device="cpu") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()} if with_tensors else {}  # noqa: SIM118 (no dict)
            return tensors, dict(file.metadata() or {})
    except FileNotFoundError:
        raise FileNotFoundError(f"weights file not found: {path}") from None
    except package.SafetensorError as error:
        if is_torch_archive(path):
            raise ValueError(f"{path} is a file of torch; its name must end in .net") from None
        reason = str(error).splitlines()[0]
        raise ValueError(f"{path} is not a safetensors file, or a damaged one ({reason})") from None


def _digest(tensors: Mapping[str, torch.Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name].contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.view(torch.uint8).numpy() if value.ndim else value[None].view(torch.uint8).numpy())
    return digest.hexdigest()
