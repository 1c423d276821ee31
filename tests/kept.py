"""What was looked at once and found right, kept as JSON under `golden/kept`: whole pictures, tables, texts.

After a change that is meant: `UPDATE_EXPECTED=1 pytest` on the file of the test, and a look at the difference.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

_FOLDER = Path(__file__).parent / "golden" / "kept"
_WIDTH = 120
_NUMBER = re.compile(r"(-?\d+\.?\d*(?:e[-+]\d+)?)")


def assert_kept(
    name: str, value: Any, *, part: str = "", exact: bool = False, rtol: float = 1e-4, atol: float = 1e-6
) -> None:
    """Compares a value, made of what JSON and `plain` know, with the one that is kept as `name`.

    Args:
        part: of a file that several tests share.
        exact: texts to the letter; otherwise numbers in them may be off by one in the last of their decimals.
    """
    path, seen = _FOLDER / f"{name}.json", plain(value)
    kept = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    if os.environ.get("UPDATE_EXPECTED"):
        kept = {**kept, part: seen} if part else seen
        path.parent.mkdir(exist_ok=True)
        path.write_text(_text(kept) + "\n", encoding="utf-8")
    if exact:
        rtol = atol = 0.0
    _compare(seen, kept[part] if part else kept, f"{name}.{part}" if part else name, rtol, atol)


def plain(value: Any) -> Any:
    """Dataclasses, arrays and tensors as JSON holds them; numbers to seven digits, what is not finite as text."""
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().numpy()
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if dataclasses.is_dataclass(value):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(v) for key, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return float(f"{value:.7g}") if np.isfinite(value) else str(value)
    return value if value is None or isinstance(value, (bool, int, str)) else str(value)


def _text(value: Any, indent: int = 0) -> str:
    """JSON in which whatever fits stands on one line."""
    line = json.dumps(value, ensure_ascii=False)
    if indent + len(line) <= _WIDTH or not isinstance(value, (dict, list)):
        return line
    inner = " " * (indent + 1)
    if isinstance(value, dict):
        parts = [f"{inner}{json.dumps(key)}: {_text(v, indent + 1)}" for key, v in value.items()]
    else:
        parts = [inner + _text(v, indent + 1) for v in value]
    opening, closing = "{}" if isinstance(value, dict) else "[]"
    return f"{opening}\n" + ",\n".join(parts) + f"\n{' ' * indent}{closing}"


def _compare(seen: Any, kept: Any, place: str, rtol: float, atol: float) -> None:
    if isinstance(kept, dict) and isinstance(seen, dict):
        assert list(seen) == list(kept), f"{place}: {list(seen)}, kept: {list(kept)}"
        for key in kept:
            _compare(seen[key], kept[key], f"{place}.{key}", rtol, atol)
    elif isinstance(kept, list) and isinstance(seen, list):
        assert len(seen) == len(kept), f"{place}: {seen}, kept: {kept}"
        for index, (one, other) in enumerate(zip(seen, kept, strict=True)):
            _compare(one, other, f"{place}[{index}]", rtol, atol)
    elif type(kept) is float or type(seen) is float:
        assert np.isclose(seen, kept, rtol=rtol, atol=atol), f"{place}: {seen}, kept: {kept}"
    elif isinstance(kept, str) and isinstance(seen, str) and rtol > 0:
        _compare_texts(seen, kept, place)
    else:
        assert type(seen) is type(kept) and seen == kept, f"{place}: {seen!r}, kept: {kept!r}"


def _compare_texts(seen: str, kept: str, place: str) -> None:
    """Words alike, whole numbers alike, other numbers to their last digit; what is next to nothing may be any such."""
    parts = [_NUMBER.split(text) for text in (seen, kept)]
    assert [p[::2] for p in parts[:1]] == [p[::2] for p in parts[1:]], f"{place}: {seen!r}, kept: {kept!r}"
    for one, other in zip(*(p[1::2] for p in parts), strict=True):
        decimals = len(other.partition("e")[0].partition(".")[2])
        allowed = 1e-3 * abs(float(other)) + (1.01 * 10.0**-decimals if decimals else 0.0)
        apart = abs(float(one) - float(other))
        assert apart <= allowed or max(abs(float(one)), abs(float(other))) < 1e-3, f"{place}: {seen!r}, kept: {kept!r}"
