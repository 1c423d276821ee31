"""Answers as text for people and programs: CSV, JSON, and one 4 x 4 camera-to-world matrix a photo."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from exports.georeference import Georeference
from exports.spread import Spread
from localization.answer import Answer
from records.files import read_json, replacing, write_json

GEOGRAPHIC_COLUMNS = ("longitude_deg", "latitude_deg", "height_m", "yaw_deg", "pitch_deg", "roll_deg")
# Digits that keep 1 mm or 0.001 deg.
_DIGITS = {"longitude_deg": 9, "latitude_deg": 9}


def geographic_columns(answer: Answer, georeference: Georeference | None) -> dict[str, float | None]:
    """The values of GEOGRAPHIC_COLUMNS; None without a pose or without a place on Earth."""
    if georeference is None or not answer.success:
        return dict.fromkeys(GEOGRAPHIC_COLUMNS)
    pose = georeference.pose(answer.world_from_cam_44)
    return {name: getattr(pose, name) for name in GEOGRAPHIC_COLUMNS}


def row(answer: Answer, georeference: Georeference | None) -> dict[str, Any]:
    """One line of the CSV: None where there is nothing to say."""
    spread = Spread.of(answer.covariance_66)
    position = answer.world_from_cam_44[:3, 3] if answer.success else (None, None, None)
    return {
        "name": answer.name,
        "verdict": answer.verdict,
        "confidence": answer.confidence,
        **dict(zip(("x", "y", "z"), position, strict=True)),
        **geographic_columns(answer, georeference),
        "sigma_east_m": spread.east_m,
        "sigma_north_m": spread.north_m,
        "sigma_up_m": spread.up_m,
        "sigma_rotation_deg": spread.rotation_deg,
        "stage": answer.stage,
        "inlier_share": answer.inlier_share,
        "score": answer.score,
        "coordinate_sigma_m": answer.sigma,
        "seconds": answer.seconds,
        "time_s": answer.time_s,
    }


def write_csv(answers: Sequence[Answer], georeference: Georeference | None, path: Path) -> None:
    """One line per photo in the order given, those without a pose too."""
    rows = [row(answer, georeference) for answer in answers]
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(rows[0])
    writer.writerows([_text(name, value) for name, value in line.items()] for line in rows)
    with replacing(path) as temporary:
        temporary.write_text(text.getvalue(), encoding="utf-8")


def _text(name: str, value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else f"{value:.{_DIGITS.get(name, 4)}f}"


def answer_record(answer: Answer, georeference: Georeference | None) -> dict[str, Any]:
    """Everything that is known of a photo, in JSON types; what is not known is null."""
    covariance_66 = answer.covariance_66 if np.isfinite(answer.covariance_66).all() else None
    return {
        **row(answer, georeference),
        "world_from_cam": answer.world_from_cam_44.tolist() if answer.success else None,
        "intrinsics": answer.K_33.tolist(),
        "size": list(answer.size_wh),
        "covariance": None if covariance_66 is None else covariance_66.tolist(),
        "coarse": None if answer.coarse is None else answer_record(answer.coarse, georeference),
    }


def write_answers_json(
    answers: Sequence[Answer], frame: dict[str, Any] | None, georeference: Georeference | None, path: Path
) -> None:
    """All answers with the frame that they are in."""
    write_json(
        path,
        {
            "convention": "world_from_cam: camera-to-world 4 x 4, OpenCV camera axes (x right, y down, z forward), metres; "
            "world = CRS coordinates - origin_xyz; covariance of (rotation vector in camera axes in radians, camera centre "
            "in the world in metres); intrinsics of the upright photo without distortion",
            "frame": frame,
            "height_datum": None if georeference is None else georeference.datum,
            "ellipsoidal": None if georeference is None else georeference.ellipsoidal,
            "answers": [answer_record(answer, georeference) for answer in answers],
        },
    )


@dataclass(frozen=True)
class AnswersFile:
    """What `write_answers_json` keeps: the answers, their frame, and what heights are above (`Georeference`)."""

    answers: list[Answer]
    frame: dict[str, Any] | None
    datum: str | None
    ellipsoidal: bool | None


def read_answers_json(path: Path) -> AnswersFile:
    """The answers of a localisation; coarse ones within refined ones are left behind.

    Raises:
        FileNotFoundError, ValueError: absent, not JSON, or another file; names it.
    """
    content = read_json(path, "poses")
    try:
        answers = [_answer(record) for record in content["answers"]]
        return AnswersFile(answers, content["frame"], content["height_datum"], content["ellipsoidal"])
    except (KeyError, TypeError, ValueError):
        raise ValueError(f"{path} holds no answers of a localisation") from None


def _answer(record: dict[str, Any]) -> Answer:
    pose, covariance = record["world_from_cam"], record["covariance"]
    return Answer(
        name=record["name"],
        world_from_cam_44=np.eye(4) if pose is None else np.array(pose, np.float64).reshape(4, 4),
        K_33=np.array(record["intrinsics"], np.float64).reshape(3, 3),
        size_wh=tuple(record["size"]),
        verdict=record["verdict"],
        confidence=record["confidence"],
        covariance_66=np.full((6, 6), np.inf) if covariance is None else np.array(covariance, np.float64).reshape(6, 6),
        inlier_share=record["inlier_share"],
        score=record["score"],
        sigma=record["coordinate_sigma_m"],
        stage=record["stage"],
        seconds=record["seconds"],
        time_s=record["time_s"],
    )


def write_pose_files(answers: Sequence[Answer], folder: Path) -> None:
    """`<name without ending>.txt` per photo with a pose: camera-to-world 4 x 4, as in the sections of data sets.

    All keep their endings where two photos differ by nothing else. What an earlier localisation left of a photo that has no
    pose now is removed.

    Raises:
        ValueError: a name leads out of the folder, or occurs twice; nothing is written then.
    """
    paths = [folder / name for name in _pose_names(answers)]
    for answer, path in zip(answers, paths, strict=True):
        if folder.resolve() not in path.resolve().parents:
            raise ValueError(f"the name {answer.name!r} leads out of {folder}")
    for answer, path in zip(answers, paths, strict=True):
        if not answer.success:
            path.unlink(missing_ok=True)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            np.savetxt(temporary, answer.world_from_cam_44, fmt="%.12g")


def _pose_names(answers: Sequence[Answer]) -> list[Path]:
    """A file name for each answer, below the folder of poses."""
    counts = Counter(answer.name for answer in answers)
    twice = [name for name, count in counts.items() if count > 1]
    if twice:
        raise ValueError(f"two answers are named {twice[0]}: they would share a pose file")
    # What stands behind the last dot of a video's frame is not the whole ending.
    short = [Path(name) if "#" in name else Path(name).with_suffix("") for name in counts]
    return [Path(f"{name}.txt") for name in (short if len(set(short)) == len(short) else counts)]
