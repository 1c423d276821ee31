"""Answers with their places on Earth as CSV, and read back from what localisation wrote."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from exports.georeference import Georeference
from exports.spread import Spread
from localization.answer import Answer
from localization.writing import FORMAT, VERSION
from records.files import read_json, replacing

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


def read_answers(path: Path) -> tuple[list[Answer], dict[str, Any] | None]:
    """(answers, frame) of the answers.json of a localisation; coarse ones within refined ones are left behind.

    Raises:
        FileNotFoundError, ValueError: absent, not JSON, of another version, or another file; names it.
    """
    content = read_json(path, "answers")
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError(f"{path} holds no answers of a localisation")
    if content.get("version") != VERSION:
        raise ValueError(f"{path} has version {content.get('version')}; this software reads version {VERSION}")
    try:
        return [_answer(record) for record in content["answers"]], content["frame"]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"answers {path} are damaged: {error}") from None


def _answer(record: dict[str, Any]) -> Answer:
    pose, covariance = record["world_from_cam_44"], record["covariance_66"]
    return Answer(
        name=record["name"],
        world_from_cam_44=np.eye(4) if pose is None else np.array(pose, np.float64).reshape(4, 4),
        K_33=np.array(record["K_33"], np.float64).reshape(3, 3),
        size_wh=tuple(record["size_wh"]),
        verdict=record["verdict"],
        confidence=record["confidence"],
        covariance_66=np.full((6, 6), np.inf) if covariance is None else np.array(covariance, np.float64).reshape(6, 6),
        inlier_share=record["inlier_share"],
        score=float("nan") if record["score"] is None else record["score"],
        sigma=record["sigma_m"],
        stage=record["stage"],
        seconds=record["seconds"],
        time_s=record["time_s"],
    )
