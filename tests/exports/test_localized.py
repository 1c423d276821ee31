"""What `localize.py` makes of answers: maps, tracks, logs, the report, places."""

from __future__ import annotations

import json
import logging
import sys

import cv2
import numpy as np
import pytest
from PIL import Image
from rasterio.crs import CRS

from datagen.scene import GeoScene
from exports import mavlink, ros
from exports.localized import OutputOptions, check_output, photo_of, place_of, write_outputs
from localization.intrinsics import intrinsics_from
from localization.photos import Source

from .conftest import failed_answer, make_answer


def test_everything_that_was_asked_for(flat: GeoScene, flat_frame, tmp_path, caplog):
    answers = [make_answer(f"{i}.png", position=(10.0 * i, 0, 100), time_s=float(i)) for i in range(5)]
    answers[2] = make_answer(
        "2.png", position=(20.0, 30.0, 100), time_s=2.0, covariance_66=np.diag([1e-4] * 3 + [400.0] * 3)
    )
    wanted = OutputOptions(smooth=True, locate=(300.0, 200.0), report=tmp_path / "report.html")
    photo_HW3 = np.full((40, 60, 3), 90, np.uint8)
    with caplog.at_level(logging.INFO):
        found = write_outputs(
            answers, flat_frame, tmp_path / "out", wanted, surface=flat, picture_of=lambda answer: photo_HW3, title="Flight"
        )
    assert abs(found[2].world_from_cam_44[1, 3]) < 5 and found[2].stage == "smoothed"  # the vague one gives way
    written = json.loads((tmp_path / "out/smoothed/answers.json").read_text())
    assert written["answers"][2]["stage"] == "smoothed" and (tmp_path / "out/smoothed/answers.kml").is_file()
    assert (tmp_path / "report.html").read_text().count("<section") == 5
    places = [record.message for record in caplog.records if "longitude" in record.message and "away" in record.message]
    assert sum("yaw from true north" in record.message for record in caplog.records) == 1
    assert len(places) == 5 and places[1].startswith("1.png (300, 200): longitude 10.3")
    assert "100.0 m away, within" in places[0]


def test_what_would_go_wrong_is_said_first(tmp_path, monkeypatch):
    for package in (ros, mavlink):  # whether they are there is another test's
        monkeypatch.setattr(package, "check_installed", lambda: None)
    with pytest.raises(ValueError, match="--locate needs --surface and --ortho"):
        check_output(OutputOptions(locate=(1.0, 2.0)), False, [])
    with pytest.raises(FileExistsError, match="already there"):
        check_output(OutputOptions(ros2=tmp_path), True, [])
    (tmp_path / "file").write_text("")
    for name in ("report", "ros2", "mavlink"):
        with pytest.raises(PermissionError, match=r"cannot write x into .*/file: it is a file"):
            check_output(OutputOptions(**{name: tmp_path / "file/x"}), True, [])
        check_output(OutputOptions(**{name: tmp_path / "new/x"}), True, [])


def test_packages_that_are_missing_are_said_first(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match="needs the optional package rosbags"):
        check_output(OutputOptions(ros2=tmp_path / "bag"), True, [])
    monkeypatch.setitem(sys.modules, "pymavlink.dialects.v20", None)
    with pytest.raises(ValueError, match="needs the optional package pymavlink"):
        check_output(OutputOptions(mavlink=tmp_path / "log"), True, [])


def photo_taken(path, clock: str | None = None, orientation: int = 1) -> Source:
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif.get_ifd(0x8769).update({0x9003: clock} if clock else {})
    Image.new("RGB", (60, 40)).save(path, exif=exif)
    return Source(path, path.name)


def test_photos_that_are_no_track_are_said_first(tmp_path):
    wanted = OutputOptions(smooth=True)
    sources = [photo_taken(tmp_path / f"{i}.jpg", f"2024:05:06 12:00:0{i}") for i in range(4)]
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no picture")
    check_output(wanted, False, [*sources, Source(broken, broken.name)])
    for more, message in (
        (photo_taken(tmp_path / "a.jpg"), "the time of every photo; 1 have none in their EXIF, such as a.jpg"),
        (photo_taken(tmp_path / "b.jpg", "2024:05:06 12:00:02"), "2.jpg and b.jpg have the same"),
        (Source(tmp_path / "c.mp4", "c.mp4"), "of one video, or of photos"),
    ):
        with pytest.raises(ValueError, match=message):
            check_output(wanted, False, [*sources, more])
    with pytest.raises(ValueError, match="at least 4 photos; there are 3"):
        check_output(wanted, False, sources[:3])


def test_pixels_that_no_photo_has_are_said_first(tmp_path):
    """Of pictures turned upright, 40 wide and 60 high."""
    sources = [photo_taken(tmp_path / "a.jpg", orientation=6)]
    check_output(OutputOptions(locate=(39.0, 59.0)), True, sources)
    with pytest.raises(ValueError, match="--locate 59 39: no photo has this pixel; they have 40 x 60 pixels"):
        check_output(OutputOptions(locate=(59.0, 39.0)), True, sources)
    check_output(OutputOptions(locate=(59.0, 39.0)), True, [*sources, photo_taken(tmp_path / "b.jpg")])


def test_a_track_of_too_few_photos_is_said(flat_frame, tmp_path, caplog):
    answers = [make_answer(f"{i}.png", time_s=float(i)) for i in range(3)]
    write_outputs(answers, flat_frame, tmp_path, OutputOptions(smooth=True), surface=None, picture_of=None, title="")
    assert "nothing was smoothed: fewer than four photos have a pose" in caplog.text


def test_a_photo_without_a_place_says_why(flat):
    assert place_of(failed_answer("lost.jpg"), (1.0, 1.0), flat) == "lost.jpg has no pose, so its pixels have no place"
    assert CRS.from_user_input("EPSG:32632") == flat.crs


def test_photos_are_found_again(tmp_path):
    given = intrinsics_from(("500",), None)
    folder = tmp_path / "photos/low"
    folder.mkdir(parents=True)
    picture_HW3 = np.random.default_rng(0).integers(0, 255, (24, 36, 3)).astype(np.uint8)
    cv2.imwrite(str(folder / "a#1.png"), picture_HW3[..., ::-1])
    np.testing.assert_array_equal(photo_of(make_answer("low/a#1.png"), tmp_path / "photos", given), picture_HW3)
    np.testing.assert_array_equal(photo_of(make_answer("a#1.png"), folder / "a#1.png", given), picture_HW3)


def test_frames_are_found_again(tmp_path):
    path = tmp_path / "flight.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (48, 32))
    for value in (20, 120, 220):
        writer.write(np.full((32, 48, 3), value, np.uint8))
    writer.release()
    if not path.is_file() or path.stat().st_size < 1000:
        pytest.skip("this build of OpenCV writes no video")
    given = intrinsics_from(("500",), None)
    for number, value in ((0, 20), (2, 220)):
        frame_HW3 = photo_of(make_answer(f"flight.avi#{number:06d}"), path, given)
        assert abs(float(frame_HW3.mean()) - value) < 4
