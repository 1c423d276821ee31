"""Answers as files: JSON with everything, one CSV row a photo, and a camera-to-world matrix as text for each pose."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from localization.answer import Answer
from records.files import plain, replacing, write_json

FORMAT, VERSION = "crossloc answers", 1


def write_answers(
    answers: Sequence[Answer], frame: Mapping[str, Any] | None, skipped: Mapping[str, str], folder: Path
) -> None:
    """Writes answers.json, answers.csv and poses/<name>.txt; poses of other photos that were there stay.

    Args:
        frame: of the poses, as the record of a run keeps it.
        skipped: photos that could not be read, with the reason.
        folder: is made where it is absent.
    Raises:
        OSError: the folder cannot be written.
    """
    (folder / "poses").mkdir(parents=True, exist_ok=True)
    for answer, name in zip(answers, pose_names(answers), strict=True):
        path = folder / "poses" / f"{name}.txt"
        if not answer.success:
            path.unlink(missing_ok=True)  # the pose that an earlier localisation found is not the answer any more
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            np.savetxt(temporary, answer.world_from_cam_44, fmt="%.9f")
    content = {
        "format": FORMAT,
        "version": VERSION,
        "convention": "camera-to-world, OpenCV camera axes, metres; world = CRS coordinates - origin_xyz of the frame",
        "frame": frame,
        "answers": [_json(answer) for answer in answers],
        "skipped": dict(skipped),
    }
    write_json(folder / "answers.json", content)
    with replacing(folder / "answers.csv") as temporary:
        temporary.write_text(_csv([row(answer) for answer in answers]), encoding="utf-8")


def pose_names(answers: Sequence[Answer]) -> list[str]:
    """A file name for each answer, in the photo's sub-folder; all keep their endings where two differ by nothing else."""
    names = [answer.name for answer in answers]
    # What stands behind the last dot of a video's frame is not the whole ending.
    bare = [name if "#" in name else str(PurePosixPath(name).with_suffix("")) for name in names]
    return bare if len(set(bare)) == len(bare) else names


def row(answer: Answer) -> dict[str, Any]:
    """An answer's line in the CSV; empty where something is not known. Standard deviations in metres and degrees."""
    known = np.isfinite(answer.covariance_66).all()
    spread_6 = np.sqrt(np.maximum(np.diag(answer.covariance_66), 0)) if known else np.full(6, np.nan)
    values = {
        "name": answer.name, "verdict": answer.verdict, "stage": answer.stage, "confidence": answer.confidence,
        **dict(zip(("x", "y", "z"), answer.world_from_cam_44[:3, 3] if answer.success else np.full(3, np.nan), strict=True)),
        "position_sigma_m": np.linalg.norm(spread_6[3:]), "rotation_sigma_deg": np.rad2deg(np.linalg.norm(spread_6[:3])),
        "inlier_share": answer.inlier_share, "score": answer.score, "sigma_m": answer.sigma,
        **dict(zip(("fx", "fy", "cx", "cy"), answer.K_33[(0, 1, 0, 1), (0, 1, 2, 2)], strict=True)),
        "width": answer.size_wh[0], "height": answer.size_wh[1], "seconds": answer.seconds, "time_s": answer.time_s,
    }  # fmt: skip
    return {name: _shown(value) for name, value in values.items()}


def _shown(value: Any) -> str:
    if value is None or (isinstance(value, float) and not np.isfinite(value)):
        return ""
    return f"{value:.6f}" if isinstance(value, float) else str(value)


def _csv(rows: Sequence[Mapping[str, str]]) -> str:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _json(answer: Answer) -> dict[str, Any]:
    known = np.isfinite(answer.covariance_66).all()
    return plain({
        "name": answer.name,
        "verdict": answer.verdict,
        "stage": answer.stage,
        "confidence": answer.confidence,
        "world_from_cam_44": answer.world_from_cam_44.tolist() if answer.success else None,
        "covariance_66": answer.covariance_66.tolist() if known else None,
        "K_33": answer.K_33.tolist(),
        "size_wh": list(answer.size_wh),
        "inlier_share": answer.inlier_share,
        "score": answer.score,
        "sigma_m": answer.sigma,
        "seconds": answer.seconds,
        "time_s": answer.time_s,
        "coarse": None if answer.coarse is None else _json(answer.coarse),
    })  # fmt: skip
