"""The whole check of a data set: all samples on all cores, then what shows only across them."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from dataloader.check.across import (
    by_section,
    geometry_findings,
    leak_findings,
    pair_findings,
    paired_name,
    unpaired_findings,
)
from dataloader.check.coverage import Coverage, coverage_of
from dataloader.check.finding import ERROR, Finding
from dataloader.check.pairing import samples_of, section_folders
from dataloader.check.sample import SampleFiles, Seen, inspect

# Fewer samples than this are looked at sooner than other processes start.
_MIN_FOR_PROCESSES = 100
_CHUNK = 8
# Examples of each kind in the text.
_SHOWN = 3


@dataclass(frozen=True)
class Report:
    """All that was found.

    Attributes:
        folder: what was checked. sections: name to figures of the section.
        findings: errors first. coverage: of the ground, where there are training images with coordinates.
    """

    folder: Path
    sections: dict[str, dict]
    findings: tuple[Finding, ...]
    coverage: Coverage | None

    @property
    def errors(self) -> int:
        """How many findings are errors."""
        return sum(finding.severity == ERROR for finding in self.findings)

    def as_json(self) -> dict:
        """Plain values of everything."""
        return {
            "folder": str(self.folder),
            "ok": self.errors == 0,
            "sections": self.sections,
            "findings": [{"severity": f.severity, **vars(f)} for f in self.findings],
            "coverage": None if self.coverage is None else {"cell_m": self.coverage.cell_m, "shares": self.coverage.shares},
        }

    def as_text(self) -> str:
        """A line per section, then each kind of finding with its first examples."""
        lines = [_section_line(name, figures) for name, figures in self.sections.items()]
        if self.coverage is not None and self.coverage.shares:
            shares = ", ".join(f"{name} {100 * share:.0f} %" for name, share in self.coverage.shares.items())
            lines.append(f"ground that training images see too: {shares}")
        count = Counter(finding.kind for finding in self.findings)
        for kind, number in count.items():
            of_kind = [finding for finding in self.findings if finding.kind == kind]
            lines.append(f"{of_kind[0].severity} {kind}: {number} time{'s' if number > 1 else ''}")
            lines += [f"  {finding.place}: {finding.text}" for finding in of_kind[:_SHOWN]]
        warnings = len(self.findings) - self.errors
        lines.append(
            f"{self.errors} errors, {warnings} warnings in {sum(f['samples'] for f in self.sections.values())} samples"
        )
        return "\n".join(lines)


def _section_line(name: str, figures: dict) -> str:
    parts = [f"{figures['samples']} samples", " and ".join(figures["sizes"]) or "no readable image"]
    if figures["focal_px"]:
        parts.append("f " + " to ".join(dict.fromkeys(f"{value:.6g}" for value in figures["focal_px"])) + " px")
    if figures["off_px"] is not None:
        parts.append(f"labels {figures['off_px']:.2f} px off their cells")
    if figures["depth_m"] is not None:
        parts.append(f"depth {figures['depth_m']:.4g} m, nodata {100 * figures['nodata']:.0f} %")
    return f"{name}: {', '.join(parts)}"


class _Samples(Dataset):
    """Inspections as items, so that loader processes do them."""

    def __init__(self, files: list[SampleFiles]):
        self.files = files

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Seen:
        return inspect(self.files[index])


def check_data(
    folder: Path, *, names: list[str] | None = None, limit: int | None = None, workers: int | None = None
) -> Report:
    """Checks a section, or all sections of a scene.

    Args:
        names: only these sections. limit: look at so many samples of each section, evenly spread, at photos together with
            their renders; how files and stems pair is looked at for all.
        workers: processes; None: one for each core.
    Raises:
        FileNotFoundError, ValueError: there is nothing to check.
    """
    folder = Path(folder)
    findings: list[Finding] = []
    found: dict[str, list[SampleFiles]] = {}
    sections = section_folders(folder, names)
    for section in sections:
        found[section.name], unpaired = samples_of(section)
        findings += unpaired
    findings += unpaired_findings({name: [sample.stem for sample in of_section] for name, of_section in found.items()})
    samples = [sample for name in found for sample in _chosen(found, name, limit)]
    seen = by_section(_inspected(samples, os.cpu_count() or 1 if workers is None else workers))
    for of_section in seen.values():
        for sample in of_section:
            findings += sample.findings
    findings += geometry_findings(seen) + pair_findings(seen) + leak_findings(seen)
    coverage = coverage_of(seen)
    # What some training images do not see, the others may.
    if coverage is not None and len(samples) == sum(map(len, found.values())):
        findings += coverage.findings()
    findings.sort(key=lambda finding: finding.severity != ERROR)
    figures = {section.name: _figures(seen.get(section.name, [])) for section in sections}
    return Report(folder, figures, tuple(findings), coverage)


def _chosen(found: dict[str, list[SampleFiles]], name: str, limit: int | None) -> list[SampleFiles]:
    """The samples of a section to look at."""
    samples = found[name]
    if limit is None or len(samples) <= limit:
        return samples
    partners = [other for other in found if other != name and paired_name(other) == paired_name(name)]
    stems = {sample.stem for other in partners for sample in found[other]}
    common = [sample for sample in samples if sample.stem in stems] or samples
    keep = min(limit, len(common))
    return [common[i * len(common) // keep] for i in range(keep)]


def _inspected(samples: list[SampleFiles], workers: int) -> list[Seen]:
    processes = min(workers, len(samples) // _CHUNK) if workers > 1 and len(samples) >= _MIN_FOR_PROCESSES else 0
    loader = DataLoader(_Samples(samples), batch_size=_CHUNK, num_workers=processes, collate_fn=list)
    seen: list[Seen] = []
    with tqdm(total=len(samples), desc="checking", unit="sample") as bar:
        for chunk in loader:
            seen += chunk
            bar.update(len(chunk))
    return seen


def _figures(samples: list[Seen]) -> dict:
    """What a section is like: sizes, focal lengths, medians."""

    def median(values: list) -> float | None:
        known = [value for value in values if value is not None]
        return float(np.median(known)) if known else None

    sizes = Counter(f"{s.size[1]} x {s.size[0]}" for s in samples if s.size is not None)
    focal = [float(s.K_33[0, 0]) for s in samples if s.K_33 is not None]
    return {
        "samples": len(samples),
        "sizes": [size for size, _ in sizes.most_common()],
        "focal_px": [min(focal), max(focal)] if focal else [],
        "off_px": median([s.off_px for s in samples]),
        "depth_m": median([s.depth_m for s in samples]),
        "nodata": median([s.nodata for s in samples]),
    }
