"""A report as one self-contained HTML file: no script, no file beside it, nothing from the network."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from datagen.scene import GeoScene
from datagen.texture import Footprint
from records.files import replacing

# Of pictures in the file, px: what people compare, not what they measure in.
PHOTO_WIDTH, _MAP_WIDTH = 420, 900
_CURVE_SIZE = (420, 260)
_JPEG_QUALITY = 82
# A file of more panels than this opens slowly everywhere.
MOST_PANELS = 200
_COLOURS = {"ok": "#2e9e4f", "doubtful": "#e09b16", "failed": "#d23b3b", "": "#3b6fd2"}


@dataclass(frozen=True)
class Panel:
    """One photo.

    Attributes:
        photo_HW3: uint8 RGB. render_HW3: the map seen from the estimated pose, same shape; None without geodata.
        maps: title to uint8 RGB [h, w, 3], small pictures such as coordinates, errors and inliers.
        facts: what is said of it, in order.
        verdict: colours it; empty where nothing judges.
    """

    name: str
    photo_HW3: np.ndarray
    render_HW3: np.ndarray | None
    maps: Mapping[str, np.ndarray]
    facts: Mapping[str, str]
    verdict: str = ""


@dataclass(frozen=True)
class Position:
    """A camera on the map; local metres. estimated_2 or true_2 is None where it is not known."""

    name: str
    estimated_2: np.ndarray | None
    true_2: np.ndarray | None
    verdict: str = ""


@dataclass(frozen=True)
class Background:
    """A picture from above, north up: uint8 RGB, and left, bottom, right, top in local metres."""

    picture_HW3: np.ndarray
    bounds: tuple[float, float, float, float]


@dataclass(frozen=True)
class Report:
    """What a report shows.

    Attributes:
        figures: name to value, the table at the top.
        curves: title to (unit, errors): error distributions; infinite errors never come in.
        worst: names of panels to show first, in order.
        note: said above the panels.
    """

    title: str
    figures: Mapping[str, str]
    panels: Sequence[Panel]
    positions: Sequence[Position]
    background: Background | None
    curves: Mapping[str, tuple[str, Sequence[float]]] = field(default_factory=dict)
    tables: Mapping[str, Sequence[Sequence[str]]] = field(default_factory=dict)
    worst: Sequence[str] = ()
    note: str = ""


def write_report(report: Report, path: Path) -> None:
    """Writes the file, with its folder; complete or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        temporary.write_text(page(report), encoding="utf-8")


def page(report: Report) -> str:
    """The file's text."""
    by_name = {panel.name: panel for panel in report.panels}
    shown = list(report.panels)[:MOST_PANELS]
    note = report.note
    if len(report.panels) > len(shown):
        note += f" The first {len(shown)} of {len(report.panels)} photos are shown."
    parts = [
        f"<h1>{_text(report.title)}</h1>",
        _table([(name, value) for name, value in report.figures.items()]),
        *(f"<h2>{_text(title)}</h2>{_table(rows, header=True)}" for title, rows in report.tables.items()),
        f"<h2>From above</h2>{plan(report.positions, report.background)}" if report.positions else "",
        f'<h2>Error distributions</h2><div class="row">{"".join(_curve(t, *c) for t, c in report.curves.items())}</div>'
        if report.curves
        else "",
    ]
    worst = [by_name[name] for name in report.worst if name in by_name]
    if worst:
        parts.append(
            f"<h2>The worst {len(worst)}</h2>" + "".join(_panel(panel, f"worst{i}") for i, panel in enumerate(worst))
        )
    parts.append(f"<h2>All photos</h2><p>{_text(note)}</p>" + "".join(_panel(p, f"photo{i}") for i, p in enumerate(shown)))
    body = "\n".join(filter(None, parts))
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f"<title>{_text(report.title)}</title><style>{_STYLE}</style></head>\n<body>{body}</body></html>\n"
    )


def orthophoto(surface: GeoScene, positions: Sequence[Position]) -> Background:
    """The part of the orthophoto around the cameras; grey where there is none."""
    left, bottom, right, top = _around(positions, surface.grid.bounds)
    width = _MAP_WIDTH
    step = (right - left) / width
    height = max(1, round((top - bottom) / step))
    x, y = np.meshgrid(left + (np.arange(width) + 0.5) * step, top - (np.arange(height) + 0.5) * step)
    grid = surface.ortho_grid
    u, v = (value.ravel().astype(np.float32) for value in (grid.columns(x), grid.rows_of(y)))
    texels = np.full(u.size, step / grid.step_x, np.float32)
    none = np.zeros_like(texels)
    colour_N3 = surface.texture.sample(u, v, Footprint(texels, none, none, texels))
    colour_N3[~surface.texture.is_picture(u, v)] = 200
    picture_HW3 = np.clip(np.rint(colour_N3), 0, 255).astype(np.uint8).reshape(height, width, 3)
    return Background(picture_HW3, (left, bottom, right, top))


def _around(positions: Sequence[Position], bounds: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
    """The cameras' extent with a margin; true positions decide, since an estimate may be anywhere."""
    true = [p.true_2 for p in positions if p.true_2 is not None]
    known = true or [p.estimated_2 for p in positions if p.estimated_2 is not None]
    if not known:
        return bounds
    low_2, high_2 = np.min(known, 0), np.max(known, 0)
    margin = 0.2 * float((high_2 - low_2).max()) + 15.0
    return (*(float(v) for v in low_2 - margin), *(float(v) for v in high_2 + margin))


def plan(positions: Sequence[Position], background: Background | None) -> str:
    """SVG: true positions as rings, estimates as dots joined to them; those outside the frame are counted."""
    bounds = background.bounds if background is not None else _around(positions, (0.0, 0.0, 1.0, 1.0))
    left, bottom, right, top = bounds
    scale = _MAP_WIDTH / (right - left)
    height = max(1.0, (top - bottom) * scale)

    def at(point_2: np.ndarray) -> tuple[float, float]:
        return (float(point_2[0]) - left) * scale, (top - float(point_2[1])) * scale

    marks, outside = [], 0
    for position in positions:
        ends = [None if point_2 is None else at(point_2) for point_2 in (position.true_2, position.estimated_2)]
        if ends[1] is not None and not (0 <= ends[1][0] <= _MAP_WIDTH and 0 <= ends[1][1] <= height):
            outside += 1
        colour = _COLOURS[position.verdict]
        label = f"<title>{_text(position.name)}</title>"
        if None not in ends:
            (x1, y1), (x2, y2) = ends
            marks.append(
                f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}" stroke-width="2"/>'
            )
        if ends[0] is not None:
            x, y = ends[0]
            marks.append(f'<circle class="true" cx="{x:.1f}" cy="{y:.1f}" r="5" fill="none" stroke="white">{label}</circle>')
        if ends[1] is not None:
            x, y = ends[1]
            marks.append(f'<circle class="estimated" cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}">{label}</circle>')
    picture = ""
    if background is not None:
        picture = f'<image href="{_jpeg(background.picture_HW3)}" width="{_MAP_WIDTH}" height="{height:.1f}"/>'
    length_m = _round_length(0.2 * (right - left))
    bar = (
        f'<line x1="15" x2="{15 + length_m * scale:.1f}" y1="{height - 15:.1f}" y2="{height - 15:.1f}" stroke="white" '
        f'stroke-width="4"/><text x="15" y="{height - 22:.1f}" fill="white">{length_m:g} m</text>'
    )
    return (
        f'<svg class="plan" viewBox="0 0 {_MAP_WIDTH} {height:.1f}" width="{_MAP_WIDTH}"><rect width="100%" height="100%" '
        f'fill="#667"/>{picture}{"".join(marks)}{bar}</svg><p>Rings: true positions; dots: estimates, '
        f"{outside} of them outside the picture. North is up.</p>"
    )


def _round_length(value: float) -> float:
    """1, 2 or 5 times a power of ten, at most the value."""
    power = 10.0 ** np.floor(np.log10(value))
    return float(power * max(step for step in (1, 2, 5) if step * power <= value))


def _curve(title: str, unit: str, errors: Sequence[float]) -> str:
    """An error distribution as SVG, up to twice its 90 % point."""
    width, height = _CURVE_SIZE
    ordered = np.sort(np.asarray(errors, np.float64))
    finite = ordered[np.isfinite(ordered)]
    limit = float(2 * np.quantile(finite, 0.9)) if finite.size else 1.0
    limit = limit or 1.0
    points = ["0,1"]
    for rank, error in enumerate(finite):  # a step up at each error
        points += [f"{error / limit:.4f},{1 - (rank + step) / len(ordered):.4f}" for step in (0, 1)]
    points.append(f"1,{1 - finite.size / max(len(ordered), 1):.4f}")
    ticks = "".join(_tick_x(share, limit) for share in (0, 0.25, 0.5, 0.75, 1))
    ticks += "".join(_tick_y(share) for share in (0, 0.5, 1))
    return (
        f'<svg class="curve" width="{width}" height="{height}"><text x="{width / 2:.0f}" y="14" text-anchor="middle">'
        f"{_text(title)}, {_text(unit)}: % of photos below</text>{ticks}"
        f'<svg x="40" y="20" width="{width - 60}" height="{height - 50}" viewBox="0 0 1 1" preserveAspectRatio="none">'
        f'<polyline points="{" ".join(points)}" fill="none" stroke="#3b6fd2" stroke-width="2" '
        'vector-effect="non-scaling-stroke"/></svg></svg>'
    )


def _tick_x(share: float, limit: float) -> str:
    width, height = _CURVE_SIZE
    x = 40 + share * (width - 60)
    return (
        f'<text x="{x:.0f}" y="{height - 8}" text-anchor="middle">{share * limit:.3g}</text>'
        f'<line x1="{x:.0f}" x2="{x:.0f}" y1="20" y2="{height - 30}" class="grid"/>'
    )


def _tick_y(share: float) -> str:
    width, height = _CURVE_SIZE
    y = 20 + (1 - share) * (height - 50)
    return (
        f'<text x="34" y="{y + 4:.0f}" text-anchor="end">{100 * share:.0f}</text>'
        f'<line x1="40" x2="{width - 20}" y1="{y:.0f}" y2="{y:.0f}" class="grid"/>'
    )


def _panel(panel: Panel, identity: str) -> str:
    """A photo, blinking with its render while the box is ticked, beside its maps and facts."""
    photo = f'<img class="photo" alt="{_text(panel.name)}" src="{_jpeg(_fitted(panel.photo_HW3))}">'
    if panel.render_HW3 is not None:
        photo = (
            f'<input type="checkbox" id="{identity}" checked><label for="{identity}">blink with the map seen from the '
            f'estimated pose</label><div class="pair">{photo}<img class="render" alt="render" '
            f'src="{_jpeg(_fitted(panel.render_HW3))}"></div>'
        )
    maps = "".join(
        f'<figure><img class="map" alt="{_text(title)}" src="{_png(picture)}">'
        f"<figcaption>{_text(title)}</figcaption></figure>"
        for title, picture in panel.maps.items()
    )
    return (
        f'<section class="panel" style="border-color:{_COLOURS[panel.verdict]}"><h3>{_text(panel.name)} '
        f'<span style="color:{_COLOURS[panel.verdict]}">{_text(panel.verdict)}</span></h3><div class="row">'
        f"<div>{photo}</div>{maps}{_table(list(panel.facts.items()))}</div></section>"
    )


def _fitted(picture_HW3: np.ndarray) -> np.ndarray:
    height, width = picture_HW3.shape[:2]
    if width <= PHOTO_WIDTH:
        return picture_HW3
    return cv2.resize(picture_HW3, (PHOTO_WIDTH, round(height * PHOTO_WIDTH / width)), interpolation=cv2.INTER_AREA)


def _table(rows: Sequence[Sequence[str]], *, header: bool = False) -> str:
    lines = []
    for index, row in enumerate(rows):
        tag = "th" if header and index == 0 else "td"
        lines.append("<tr>" + "".join(f"<{tag}>{_text(cell)}</{tag}>" for cell in row) + "</tr>")
    return f"<table>{''.join(lines)}</table>"


def _text(value: object) -> str:
    return html.escape(str(value))


def _jpeg(picture_HW3: np.ndarray) -> str:
    return _inline(picture_HW3, "jpeg", ".jpg", [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])


def _png(picture_HW3: np.ndarray) -> str:
    return _inline(picture_HW3, "png", ".png", [])


def _inline(picture_HW3: np.ndarray, kind: str, ending: str, options: list[int]) -> str:
    good, data = cv2.imencode(ending, cv2.cvtColor(picture_HW3, cv2.COLOR_RGB2BGR), options)
    if not good:
        raise RuntimeError(f"OpenCV cannot write a {kind} picture of shape {picture_HW3.shape}")
    return f"data:image/{kind};base64,{base64.b64encode(data.tobytes()).decode()}"


_STYLE = """
body{font:15px/1.4 system-ui,sans-serif;margin:1.5em auto;max-width:1500px;padding:0 1em;color:#222;background:#fafafa}
table{border-collapse:collapse;margin:.5em 0}td,th{border-bottom:1px solid #ddd;padding:.15em .7em;text-align:left}
td:last-child{font-variant-numeric:tabular-nums}.row{display:flex;flex-wrap:wrap;gap:1em;align-items:flex-start}
.panel{background:white;border-left:6px solid;padding:.3em 1em .8em;margin:.8em 0;box-shadow:0 1px 3px #0002}
figure{margin:0}figcaption{font-size:12px;color:#555}.map{width:240px;image-rendering:pixelated}
.pair{position:relative;width:max-content}.photo,.render{width:420px;display:block}
.render{position:absolute;left:0;top:0;opacity:0}@keyframes blink{0%,49%{opacity:0}50%,100%{opacity:1}}
input:checked~.pair .render{animation:blink 1.6s infinite}.plan{max-width:100%;height:auto}
.curve text{font-size:12px}.grid{stroke:#ddd}
"""
