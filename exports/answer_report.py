"""The HTML report of a localisation without ground truth: what each answer is, and the map seen from where it says it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np

from datagen.render import Renderer
from datagen.scene import GeoScene
from exports.report import MOST_PANELS, PHOTO_WIDTH, Panel, Position, Report, orthophoto, write_report
from exports.spread import Spread
from exports.tables import GEOGRAPHIC_COLUMNS, geographic_columns
from exports.writing import georeference_of
from localization.answer import VERDICTS, Answer

_DIGITS = {"longitude_deg": 7, "latitude_deg": 7}


def write_answer_report(
    answers: Sequence[Answer],
    photo_of: Callable[[Answer], np.ndarray],
    frame: Mapping[str, object] | None,
    path: Path,
    *,
    title: str,
    surface: GeoScene | None = None,
    maps_of: Callable[[Answer], Mapping[str, np.ndarray]] | None = None,
) -> None:
    """Writes the report; the least believed answers come first.

    Args:
        photo_of: uint8 RGB [H, W, 3] of an answer's photo, upright and without distortion.
        frame: of the scene. surface: the geodata in it; without them there is no render and no orthophoto.
        maps_of: small pictures to show beside a photo, uint8 RGB, by title.
    Raises:
        ValueError: no answer.
    """
    if not answers:
        raise ValueError("no photo was localised: there is nothing to report")
    georeference = georeference_of(frame, surface, quiet=True)
    renderer = None if surface is None else Renderer(surface)
    ranked = sorted(answers, key=lambda a: (-VERDICTS.index(a.verdict), a.confidence if a.confidence is not None else 1.0))
    panels = []
    for answer in ranked[:MOST_PANELS]:
        photo_HW3 = _fitted(photo_of(answer))
        maps = {} if maps_of is None else maps_of(answer)
        render_HW3 = None if renderer is None or not answer.success else _render(renderer, answer, photo_HW3)
        panels.append(Panel(answer.name, photo_HW3, render_HW3, maps, _facts(answer, georeference), answer.verdict))
    positions = [
        Position(answer.name, answer.world_from_cam_44[:2, 3] if answer.success else None, None, answer.verdict)
        for answer in answers
    ]
    counts = {verdict: str(sum(answer.verdict == verdict for answer in answers)) for verdict in VERDICTS}
    note = "The least believed come first."
    if len(answers) > MOST_PANELS:
        note += f" The first {MOST_PANELS} of {len(answers)} are shown."
    background = None if surface is None else orthophoto(surface, positions)
    report = Report(title, {"photos": str(len(answers)), **counts}, panels, positions, background, note=note)
    write_report(report, path)


def _fitted(photo_HW3: np.ndarray) -> np.ndarray:
    height, width = photo_HW3.shape[:2]
    size = (PHOTO_WIDTH, max(1, round(height * PHOTO_WIDTH / width)))
    return cv2.resize(photo_HW3, size, interpolation=cv2.INTER_AREA)


def _render(renderer: Renderer, answer: Answer, photo_HW3: np.ndarray) -> np.ndarray:
    height, width = photo_HW3.shape[:2]
    scale = np.diag([width / answer.size_wh[0], height / answer.size_wh[1], 1.0])
    return renderer.render(answer.world_from_cam_44, scale @ answer.K_33, width, height).rgb_HW3


def _facts(answer: Answer, georeference) -> dict[str, str]:
    spread = Spread.of(answer.covariance_66)
    facts: dict[str, str | None] = {
        "confidence": None if answer.confidence is None else f"{answer.confidence:.2f}",
        "deviation": None if spread.horizontal_m is None else f"{spread.horizontal_m:.2f} m, {spread.up_m:.2f} m up",
        "of the attitude": None if spread.rotation_deg is None else f"{spread.rotation_deg:.2f} deg",
        "inliers": f"{100 * answer.inlier_share:.0f} %",
        "stage": answer.stage,
        "time": f"{answer.seconds:.2f} s",
    }
    if answer.success:
        facts["local position"] = ", ".join(f"{value:.2f}" for value in answer.world_from_cam_44[:3, 3]) + " m"
    for name in GEOGRAPHIC_COLUMNS:
        value = geographic_columns(answer, georeference)[name]
        facts[name] = None if value is None else f"{value:.{_DIGITS.get(name, 2)}f}"
    return {name: value for name, value in facts.items() if value is not None}
