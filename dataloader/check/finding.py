"""What a check says: findings of named kinds, and how bad each kind is."""

from __future__ import annotations

from dataclasses import dataclass

ERROR, WARNING = "error", "warning"

# Kinds that may be meant; all others are errors. docs/datasets.md lists them all.
WARNINGS = frozenset(
    {
        "blank-image",
        "coarse-classes",
        "coarse-coordinates",
        "implausible-focal-length",
        "label-type",
        "mostly-nodata",
        "nodata-mismatch",
        "normal-mismatch",
        "repeated-image",
        "near-pose",
        "photo-of-another-view",
        "low-coverage",
        "stray-file",
    }
)


@dataclass(frozen=True)
class Finding:
    """One problem.

    Attributes:
        kind: a word for it. section, stem: where; empty for what concerns more than one.
        text: a sentence that names file, value and, where known, the mistake.
    """

    kind: str
    section: str
    stem: str
    text: str

    @property
    def severity(self) -> str:
        """ "error": training or figures would be wrong; "warning": look at it."""
        return WARNING if self.kind in WARNINGS else ERROR

    @property
    def place(self) -> str:
        """Section and stem."""
        return "/".join(part for part in (self.section, self.stem) if part)
