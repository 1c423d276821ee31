"""The HTML report: what stands in it, and what a real browser makes of it."""

from __future__ import annotations

import base64
import re
import shutil
import subprocess
from html.parser import HTMLParser

import cv2
import numpy as np
import pytest

from datagen.render import Renderer
from exports.answer_report import write_answer_report
from exports.report import MOST_PANELS, Background, Panel, Position, Report, orthophoto, page, plan, write_report

from .conftest import failed_answer, make_answer

BROWSERS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
RED, BLUE = (np.full((60, 90, 3), colour, np.uint8) for colour in ((220, 20, 20), (20, 20, 220)))


def make_report(**changes) -> Report:
    panels = [
        Panel("a<b>.jpg", RED, BLUE, {"coordinates": RED[:4, :6]}, {"position error": "0.5 m"}, "ok"),
        Panel("c.jpg", RED, None, {}, {"position error": "no pose"}, "failed"),
    ]
    positions = [
        Position("a<b>.jpg", np.array([10.0, 0.0]), np.array([0.0, 0.0]), "ok"),
        Position("far", np.array([900.0, 0.0]), np.array([20.0, 10.0])),
        Position("c.jpg", None, np.array([-20.0, 10.0]), "failed"),
    ]
    values = dict(
        title="Demo & more", figures={"median": "0.5 m"}, panels=panels, positions=positions,
        background=Background(RED, (-50.0, -30.0, 50.0, 30.0)), curves={"position": ("m", [0.5, float("inf")])},
        tables={"Verdicts": [("verdict", "photos"), ("ok", "1")]}, worst=["c.jpg"], note="A note.",
    )  # fmt: skip
    return Report(**{**values, **changes})


class Tags(HTMLParser):
    """Counts tags and checks that they nest."""

    VOID = ("meta", "img", "input", "image", "line", "rect", "polyline")

    def __init__(self, text: str):
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict]] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_startendtag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))


def test_the_page_is_well_formed_and_needs_nothing_else():
    text = page(make_report())
    tags = Tags(text)
    assert tags.open == []
    sources = [
        attrs.get("src") or attrs.get("href") for tag, attrs in tags.seen if tag in ("img", "image", "link", "script")
    ]
    # The photo, render and map of the first panel; the second panel's photo, twice: it is among the worst; the plan.
    assert len(sources) == 6 and all(source.startswith("data:image/") for source in sources)
    assert "http" not in text.replace("http-equiv", "")
    assert "a&lt;b&gt;.jpg" in text and "<b>" not in text and "Demo &amp; more" in text
    assert sum(tag == "input" for tag, _ in tags.seen) == 1  # only what has a render blinks


def test_the_plan_joins_true_and_estimated_positions():
    text = plan(make_report().positions, make_report().background)
    assert text.count('class="true"') == 3 and text.count('class="estimated"') == 2
    # 100 m are 900 px wide: the first estimate lies 90 px right of the middle.
    assert 'x1="450.0" y1="270.0" x2="540.0" y2="270.0"' in text
    assert "1 of them outside the picture" in text and ">20 m<" in text


def test_a_curve_counts_infinite_errors():
    """Of two photos one has an error: the curve ends at half."""
    text = page(make_report())
    points = re.search(r'polyline points="([^"]+)"', text)[1].split()
    assert points == ["0,1", "0.5000,1.0000", "0.5000,0.5000", "1,0.5000"]


def test_very_many_photos_are_cut_and_it_is_said():
    many = [Panel(f"{i}", RED[:2, :2], None, {}, {}) for i in range(MOST_PANELS + 5)]
    text = page(make_report(panels=many, worst=[], curves={}))
    assert text.count("<section") == MOST_PANELS and f"The first {MOST_PANELS} of {MOST_PANELS + 5} photos" in text


def test_the_orthophoto_around_the_cameras(flat):
    positions = [Position("a", np.array([5000.0, 0]), np.array([-50.0, 0.0])), Position("b", None, np.array([50.0, 40.0]))]
    found = orthophoto(flat, positions)
    assert found.bounds == pytest.approx((-85, -35, 85, 75))
    assert found.picture_HW3.shape == (round(110 / 170 * 900), 900, 3) and found.picture_HW3.std() > 20
    beyond = orthophoto(flat, [Position("a", None, np.array([1000.0, 0.0]))])
    assert (beyond.picture_HW3 == 200).all()


def test_the_report_of_answers_without_truth(flat, flat_frame, tmp_path):
    """The least believed first; the render at the pose is what the photo of that pose shows."""
    photo_HW3 = Renderer(flat).render(make_answer().world_from_cam_44, make_answer().K_33, 600, 400).rgb_HW3
    answers = [make_answer("good"), make_answer("vague", verdict="doubtful", confidence=0.4), failed_answer("lost")]
    path = tmp_path / "report.html"
    write_answer_report(
        answers, lambda answer: photo_HW3, flat_frame, path, title="Flight", surface=flat,
        maps_of=lambda answer: {"inliers": BLUE[:4, :6]},
    )  # fmt: skip
    text = path.read_text()
    assert re.findall(r"<h3>(\w+)", text) == ["lost", "vague", "good"]
    assert text.count('class="render"') == 2 and text.count("longitude_deg") == 2 and text.count("<figcaption>") == 3
    assert "<tr><td>doubtful</td><td>1</td></tr>" in text and text.count('class="estimated"') == 2
    photo, render = (_decoded(text, kind) for kind in ("photo", "render"))
    assert photo.shape == render.shape == (280, 420, 3)
    assert np.abs(photo.astype(int) - render).mean() < 12  # resampled once more
    with pytest.raises(ValueError, match="nothing to report"):
        write_answer_report([], lambda answer: photo_HW3, flat_frame, path, title="Flight")


def _decoded(text: str, kind: str) -> np.ndarray:
    """The last picture of a class in a page."""
    data = re.findall(rf'class="{kind}" [^>]*src="data:image/jpeg;base64,([^"]+)"', text)[-1]
    return cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR)


@pytest.fixture(scope="session")
def browser() -> str:
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip(f"no headless browser here ({', '.join(BROWSERS)})")
    return found


@pytest.mark.parametrize(("second", "seen"), [(0.0, RED), (1.0, BLUE)])
def test_a_browser_shows_and_blinks(browser, tmp_path, second, seen):
    """The photo is red and its render blue; the blink of 1.6 s, stopped at a second, shows the one or the other."""
    path = tmp_path / "sub/report.html"
    write_report(make_report(worst=[], positions=[], curves={}, figures={}, tables={}), path)
    stopped = (
        f".render{{animation-delay:-{second}s!important;animation-play-state:paused!important}}.map{{opacity:0}}</style>"
    )
    path.write_text(path.read_text().replace("</style>", stopped))
    shot = tmp_path / "shot.png"
    subprocess.run(
        [browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--window-size=1200,580",
         f"--screenshot={shot}", path.as_uri()],
        check=True, capture_output=True, timeout=300,
    )  # fmt: skip
    picture_HW3 = cv2.imread(str(shot))[..., ::-1].astype(int)
    shown = {
        name: int((np.abs(picture_HW3 - of[0, 0]).max(axis=2) < 40).sum()) for name, of in (("red", RED), ("blue", BLUE))
    }
    # 420 x 280 px: the photo fitted to its column; nothing of the other shows through.
    assert shown["red" if seen is RED else "blue"] > 0.95 * 420 * 280 and min(shown.values()) < 0.1 * 420 * 280
