"""The check of what was written, at the end of every command."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from datagen.sections import SECTION_RECORD
from dataloader.check.finding import ERROR
from dataloader.check.run import check_data

log = logging.getLogger(__name__)

# Samples of each section that are looked at: what a convention does wrong, it does in all of them.
_SAMPLES = 50


def check_written(scene_dir: Path, names: Sequence[str]) -> None:
    """Does what `python -m dataloader.check` does to new sections, beside those that the scene has already.

    All files are paired; `_SAMPLES` of each section are read. Sections of a scene that no command of ours made are left out:
    they may be unfinished.

    Raises:
        ValueError: there are errors; names the first, and how many there are.
    """
    ours = {path.parent.name for path in Path(scene_dir).glob(f"*/{SECTION_RECORD}") if not path.parent.name.startswith(".")}
    report = check_data(scene_dir, names=sorted(ours | set(names)), limit=_SAMPLES, workers=1)
    everything = f"python -m dataloader.check {scene_dir}"
    errors = [finding for finding in report.findings if finding.severity == ERROR]
    if errors:
        first = errors[0]
        others = f"; {len(errors) - 1} more: {everything}" if len(errors) > 1 else ""
        raise ValueError(f"what was written is wrong: {first.place}: {first.kind}: {first.text}{others}")
    off_px = [figures["off_px"] for figures in report.sections.values() if figures["off_px"] is not None]
    log.info(
        "checked: %d samples of %s%s%s",
        sum(figures["samples"] for figures in report.sections.values()),
        ", ".join(report.sections),
        f"; the labels lie {max(off_px):.2f} px from where pose and calibration see them" if off_px else "",
        _warnings(report.findings, everything),
    )


def _warnings(findings, everything: str) -> str:
    kinds = Counter(finding.kind for finding in findings)
    if not kinds:
        return ""
    named = ", ".join(f"{kind} ({count})" for kind, count in kinds.items())
    return f"; worth a look ({everything}): {named}"
