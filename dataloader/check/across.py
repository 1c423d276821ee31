"""What only several samples show: photos against their renders, and test data in training."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence

import numpy as np
from scipy.spatial import cKDTree

from dataloader.check.finding import Finding
from dataloader.check.sample import Seen
from dataloader.geometry_mistakes import explain

PARTS = ("train", "val", "test")
# Poses that are one but for how they were written; and those from which one sees nearly the same.
_SAME_M, _SAME_RAD = 1e-3, 1e-4
_NEAR_DEPTHS, _NEAR_RAD = 0.005, 0.01
# Of wrong images of a section, so many are explained together.
_EXPLAINED = 24
# A photo is another's when it looks so much more like that one's render than like its own.
_OWN_LIKENESS, _OTHER_LIKENESS = 0.1, 0.5
_MAX_PAIRS = 3000
_NAMED = 3


def part_of(section: str) -> str:
    """train, val or test: what a section is for, by its name; empty when it does not say."""
    first = section.split("_")[0]
    return first if first in PARTS else ""


def by_section(seen: Iterable[Seen]) -> dict[str, list[Seen]]:
    """Samples of each section."""
    found: dict[str, list[Seen]] = defaultdict(list)
    for sample in seen:
        found[sample.section].append(sample)
    return found


def geometry_findings(sections: dict[str, list[Seen]]) -> list[Finding]:
    """Labels that do not lie on their cells, each section's explained together."""
    findings = []
    for name, samples in sections.items():
        wrong = [sample for sample in samples if sample.wrong is not None]
        if not wrong:
            continue
        explanation = explain([sample.wrong for sample in wrong[:_EXPLAINED]])
        looked_at = sum(sample.off_px is not None for sample in samples)
        for sample in wrong:
            findings.append(
                Finding(
                    explanation.kind,
                    name,
                    sample.stem,
                    f"the labels lie {sample.wrong.where} ({len(wrong)} of {looked_at} images disagree). {explanation.text}",
                )
            )
    return findings


def paired_name(section: str) -> str:
    """What a section of photos and that of their renders are both called."""
    return section.replace("_real", "_sim")


def unpaired_findings(stems: dict[str, list[str]]) -> list[Finding]:
    """Stems that only one of a `*_real` section and the `*_sim` one of the same name has."""
    findings = []
    for real_name, sim_name in _pairs_of(stems):
        alone = sorted(set(stems[real_name]) ^ set(stems[sim_name]))
        if alone:
            named = ", ".join(alone[:_NAMED])
            text = f"{len(alone)} samples are in only one of {real_name} and {sim_name}: {named}"
            findings.append(Finding("pair-stems", real_name, alone[0], text))
    return findings


def _pairs_of(names: Collection[str]) -> list[tuple[str, str]]:
    return [(name, paired_name(name)) for name in names if name != paired_name(name) and paired_name(name) in names]


def pair_findings(sections: dict[str, list[Seen]]) -> list[Finding]:
    """`*_real` sections against the `*_sim` ones of the same name: poses, cameras, labels, and what they show."""
    findings = []
    for real_name, sim_name in _pairs_of(sections):
        sim = {sample.stem: sample for sample in sections[sim_name]}
        pairs = [(sample, sim[sample.stem]) for sample in sections[real_name] if sample.stem in sim]
        for photo, render in pairs:
            findings += _pair(photo, render)
        findings += _exchanged(pairs[:_MAX_PAIRS])
    return findings


def _pair(photo: Seen, render: Seen) -> Iterable[Finding]:
    def found(kind: str, text: str) -> Finding:
        return Finding(kind, photo.section, photo.stem, f"{text} (against {render.section})")

    if photo.world_from_cam_44 is not None and render.world_from_cam_44 is not None:
        apart_m, apart_rad = _apart(photo.world_from_cam_44, render.world_from_cam_44)
        if apart_m > _SAME_M or apart_rad > _SAME_RAD:
            yield found(
                "pair-poses",
                f"photo and render of one stem have poses {_distance(apart_m, apart_rad)} apart",
            )
    differing = [name for name, digest in photo.label_digests.items() if render.label_digests.get(name, digest) != digest]
    if differing:
        yield found("pair-labels", f"labels of the photo are not those of its render: {', '.join(differing)}")
    if photo.K_33 is not None and render.K_33 is not None:
        views = [sample.K_33[0, 0] / sample.size[1] for sample in (photo, render)]
        if abs(views[0] / views[1] - 1) > 0.01:
            yield found("pair-calibrations", f"focal lengths are {views[0]:.4g} and {views[1]:.4g} image widths")
    if photo.pixels and photo.pixels == render.pixels:
        yield found("pair-images", "the photo is the render itself")


def _apart(a_44: np.ndarray, b_44: np.ndarray) -> tuple[float, float]:
    """Metres and radians between two poses."""
    # Of the rotation's matrix: |R - 1| is sqrt(8) sin(angle / 2).
    chord = np.linalg.norm(a_44[:3, :3].T @ b_44[:3, :3] - np.eye(3)) / np.sqrt(8)
    return float(np.linalg.norm(a_44[:3, 3] - b_44[:3, 3])), float(2 * np.arcsin(min(1.0, chord)))


def _distance(apart_m: float, apart_rad: float) -> str:
    """In words; a tenth of a millimetre, or of a thousandth of a degree, is rounding."""
    return f"{round(apart_m, 4):.3g} m and {round(float(np.degrees(apart_rad)), 4):.3g} degrees"


def _exchanged(pairs: Sequence[tuple[Seen, Seen]]) -> list[Finding]:
    """Photos that look like another's render."""
    pairs = [pair for pair in pairs if pair[0].thumbnail is not None and pair[1].thumbnail is not None]
    if len(pairs) < 2:
        return []
    photos_NP, renders_NP = (np.stack([pair[side].thumbnail for pair in pairs]) for side in (0, 1))
    likeness_NN = photos_NP @ renders_NP.T
    own_N, best_N = np.diag(likeness_NN), likeness_NN.argmax(1)
    return [
        Finding(
            "photo-of-another-view",
            photo.section,
            photo.stem,
            f"the photo looks like the render of {pairs[best_N[i]][1].stem} (correlation {likeness_NN[i, best_N[i]]:.2f}), "
            f"not like its own ({own_N[i]:.2f})",
        )
        for i, (photo, _) in enumerate(pairs)
        if own_N[i] < _OWN_LIKENESS and likeness_NN[i, best_N[i]] > _OTHER_LIKENESS
    ]


def leak_findings(sections: dict[str, list[Seen]]) -> list[Finding]:
    """Images and poses of held-out sections that training sections hold too, and images that occur twice in a section."""
    findings = _repeated(sections)
    samples = [sample for name in sections for sample in sections[name] if part_of(name)]
    first: dict[str, Seen] = {}
    for sample in sorted((s for s in samples if s.pixels), key=lambda s: PARTS.index(part_of(s.section))):
        known = first.setdefault(sample.pixels, sample)
        if part_of(known.section) != part_of(sample.section):
            findings.append(
                Finding("same-image", sample.section, sample.stem, f"{known.section}/{known.stem} is the same image")
            )
    return findings + _shared_poses(samples)


def _repeated(sections: dict[str, list[Seen]]) -> list[Finding]:
    findings = []
    for name, samples in sections.items():
        first: dict[str, Seen] = {}
        for sample in samples:
            known = first.setdefault(sample.pixels, sample) if sample.pixels else sample
            if known is not sample and sample.thumbnail is not None:
                findings.append(Finding("repeated-image", name, sample.stem, f"the same image as {known.stem}"))
    return findings


def _shared_poses(samples: list[Seen]) -> list[Finding]:
    posed = [sample for sample in samples if sample.world_from_cam_44 is not None]
    train = [sample for sample in posed if part_of(sample.section) == "train"]
    held_out = [sample for sample in posed if part_of(sample.section) != "train"]
    if not train or not held_out:
        return []
    tree = cKDTree([sample.world_from_cam_44[:3, 3] for sample in train])
    findings = []
    for sample in held_out:
        reach_m = max(_SAME_M, _NEAR_DEPTHS * max(sample.depth_m or 0.0, 0.0))
        near = tree.query_ball_point(sample.world_from_cam_44[:3, 3], reach_m)
        found = sorted(
            ((*_apart(sample.world_from_cam_44, train[i].world_from_cam_44), i) for i in near), key=lambda f: f[:2]
        )
        close = [entry for entry in found if entry[1] <= _NEAR_RAD]
        if close:
            apart_m, apart_rad, index = close[0]
            same = apart_m <= _SAME_M and apart_rad <= _SAME_RAD
            how = "the same pose" if same else f"nearly the same pose ({_distance(apart_m, apart_rad)} off)"
            text = f"{train[index].section}/{train[index].stem} has {how}"
            findings.append(Finding("same-pose" if same else "near-pose", sample.section, sample.stem, text))
    return findings
