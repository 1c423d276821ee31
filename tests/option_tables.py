"""Options as data: default, bounds, choices, flags, and whether they decide the result."""

from __future__ import annotations

import math
from dataclasses import MISSING, fields, is_dataclass
from typing import Any

# Just inside and just outside of the bounds that options have.
PROBES = (-math.inf, -2, -1, -0.5, -1e-9, 0, 1e-9, 0.5, 0.5001, 0.6, 0.6001, 1, 1.0001, 2, 30, 30.1, 63, 64, 180, 180.1,
          1023, 1024, 1025, 4096, 4097, 2**63 - 1, 2**63, math.inf, math.nan)  # fmt: skip


def taken(check):
    """The probes that a check takes."""
    good = []
    for value in PROBES:
        try:
            check("--name", value)
        except (ValueError, TypeError):
            continue
        good.append(value)
    return good


def declared(cls: type) -> dict[str, Any]:
    """By name: [default, decides, positional, lower, flags, choices, the probes that are taken]."""
    found = {}
    for field in fields(cls):
        option = field.metadata.get("option")
        if option is None:
            nested = field.default_factory if field.default_factory is not MISSING else type(field.default)
            found[field.name] = declared(nested) if is_dataclass(nested) else [str(field.default)]
            continue
        default = "required" if field.default is MISSING else field.default
        default = "made" if field.default_factory is not MISSING else default
        bounds = None
        if option.check is not None and field.name != "scale_range":
            bounds = taken(option.check)
        choices = None if option.choices is None else list(option.choices)
        found[field.name] = [default, option.decides, option.positional, option.lower, list(option.flags), choices, bounds]
    return found
