"""Files for other programs, read back by what reads them."""

from __future__ import annotations

import csv
import json
import logging
import xml.etree.ElementTree as ET
from dataclasses import replace

import numpy as np
import pycolmap
import pyproj
import pytest

from datagen.cameras import read_cameras_json, read_colmap
from datagen.scene import GeoScene
from datagen.sections import frame_of
from exports import write_all
from exports.tables import read_answers

from .conftest import failed_answer, make_answer, make_scene

KML = {"k": "http://www.opengis.net/kml/2.2"}


@pytest.fixture(scope="module")
def written(tmp_path_factory, flat, flat_frame):
    """Three photos, the second without a pose; the third was taken before the first and lies in a subfolder."""
    folder = tmp_path_factory.mktemp("answers")
    first = make_answer("a.jpg", yaw=40, pitch=-60, roll=2, time_s=1.7e9 + 5)
    third = make_answer("low/b c.jpg", position=(30, 10, 80), time_s=1.7e9, verdict="doubtful", coarse=first)
    write_all([first, failed_answer(), third], flat_frame, folder, flat)
    return folder, first, third


def test_colmap_reads_the_poses(written):
    folder, first, third = written
    model = pycolmap.Reconstruction(folder)
    images = {image.name: image for image in model.images.values()}
    # The failed one has no pose to give; COLMAP itself cuts names at a space, the project's reader does not.
    assert set(images) == {"a.jpg", "low/b"}
    assert [camera.file for camera in read_colmap(folder)] == ["a.jpg", "low/b c.jpg"]
    for name, answer in (("a.jpg", first), ("low/b", third)):
        cam_from_world_34 = np.asarray(images[name].cam_from_world().matrix())
        expected_44 = np.linalg.inv(answer.world_from_cam_44)
        np.testing.assert_allclose(cam_from_world_34, expected_44[:3], atol=1e-9)
    (camera,) = model.cameras.values()
    np.testing.assert_allclose(camera.calibration_matrix(), first.K_33)
    assert (camera.width, camera.height) == (600, 400)


def test_geojson(written, flat_frame):
    folder, first, third = written
    content = json.loads((folder / "answers.geojson").read_text())
    photos = [f for f in content["features"] if f["properties"]["kind"] == "photo"]
    assert [f["properties"]["name"] for f in photos] == ["a.jpg", "low/b c.jpg"]
    lon, lat = photos[0]["geometry"]["coordinates"]  # two numbers: nothing says that heights are above the ellipsoid
    assert (lon, lat) == pytest.approx(pyproj.Proj("EPSG:32632")(600_000.0, 5_137_000.0, inverse=True), abs=1e-8)
    assert photos[0]["properties"]["above_ground_m"] == pytest.approx(100, abs=1e-3)
    assert photos[0]["properties"]["time"] == "2023-11-14T22:13:25+00:00"
    (track,) = [f for f in content["features"] if f["properties"]["kind"] == "track"]
    assert track["properties"]["from"] == "low/b c.jpg"  # by time, not by the order given
    assert track["geometry"]["coordinates"][1] == photos[0]["geometry"]["coordinates"]


def test_rings_are_closed_and_counter_clockwise(written):
    folder, _, _ = written
    content = json.loads((folder / "answers.geojson").read_text())
    rings = [f["geometry"]["coordinates"][0] for f in content["features"] if f["geometry"]["type"] == "Polygon"]
    assert len(rings) == 2
    for ring in rings:
        assert ring[0] == ring[-1] and len(ring) > 40
        area, _ = pyproj.Geod(ellps="WGS84").polygon_area_perimeter(*np.array(ring).T)
        assert area > 0  # counter-clockwise
    area, _ = pyproj.Geod(ellps="WGS84").polygon_area_perimeter(*np.array(rings[1]).T)
    scale = pyproj.Proj("EPSG:32632").get_factors(*rings[1][0]).meridional_scale
    assert area == pytest.approx(96 * 64 / scale**2, rel=1e-4)  # 80 m up: 0.16 m a pixel


def test_kml_for_google_earth(written):
    folder, first, _ = written
    root = ET.parse(folder / "answers.kml").getroot()
    assert root.tag == f"{{{KML['k']}}}kml"
    camera = root.find(".//k:Placemark/k:Camera", KML)
    values = {child.tag.split("}")[1]: child.text for child in camera}
    assert float(values["tilt"]) == pytest.approx(30) and float(values["roll"]) == pytest.approx(2)
    convergence = pyproj.Proj("EPSG:32632").get_factors(*map(float, (values["longitude"], values["latitude"])))
    assert float(values["heading"]) == pytest.approx(40 + convergence.meridian_convergence, abs=1e-3)
    # Above the ground: right in any vertical datum.
    assert float(values["altitude"]) == pytest.approx(100, abs=1e-3) and values["altitudeMode"] == "relativeToGround"
    order = [child.tag.split("}")[1] for child in root.find(".//k:Placemark", KML)]
    assert order == ["name", "Camera", "TimeStamp", "styleUrl", "ExtendedData", "Point"]  # the order of KML's schema
    assert len(root.findall(".//k:Polygon", KML)) == 2 and len(root.findall(".//k:LineString", KML)) == 1


def test_tables_name_every_photo(written):
    folder, first, _ = written
    rows = list(csv.DictReader((folder / "geographic.csv").open()))
    assert [row["name"] for row in rows] == ["a.jpg", "failed.jpg", "low/b c.jpg"]
    assert rows[1]["verdict"] == "failed" and rows[1]["x"] == rows[1]["longitude_deg"] == rows[1]["sigma_up_m"] == ""
    assert float(rows[0]["pitch_deg"]) == pytest.approx(-60, abs=1e-3)
    assert [float(rows[0][f"sigma_{axis}_m"]) for axis in ("east", "north", "up")] == pytest.approx([0.2, 0.3, 0.5])
    assert len(json.loads((folder / "answers.json").read_text())["answers"]) == 3
    assert (folder / "poses/a.txt").is_file() and not (folder / "poses/failed.txt").exists()


def test_answers_are_read_back(written, flat_frame):
    folder, first, third = written
    answers, frame = read_answers(folder / "answers.json")
    assert frame == flat_frame and [answer.name for answer in answers] == ["a.jpg", "failed.jpg", "low/b c.jpg"]
    for answer, true in ((answers[0], first), (answers[2], third)):
        np.testing.assert_allclose(answer.world_from_cam_44, true.world_from_cam_44)
        np.testing.assert_allclose(answer.covariance_66, true.covariance_66)
        fields = ("verdict", "confidence", "size_wh", "inlier_share", "score", "sigma", "stage", "seconds", "time_s")
        assert all(getattr(answer, name) == getattr(true, name) for name in fields)
    assert not answers[1].success and np.isinf(answers[1].covariance_66).all()


def test_without_a_crs_the_rest_is_written(tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        write_all([make_answer()], None, tmp_path)
    assert "GeoJSON and KML: the scene's frame names no CRS" in caplog.text
    assert {p.name for p in tmp_path.iterdir()} >= {"images.txt", "geographic.csv", "answers.json"}
    assert not (tmp_path / "answers.geojson").exists()


def test_known_ellipsoidal_heights_are_the_third_coordinate(flat_frame, tmp_path):
    from exports.georeference import Georeference
    from exports.maps import placed, write_geojson

    georeference = Georeference(flat_frame, datum="WGS 84", ellipsoidal=True)
    write_geojson(placed([make_answer()], georeference, None), georeference, tmp_path / "a.geojson")
    (feature,) = json.loads((tmp_path / "a.geojson").read_text())["features"]
    assert feature["geometry"]["coordinates"][2] == 600.0


def test_what_cannot_be_right_is_refused(flat, flat_frame, tmp_path):
    with pytest.raises(ValueError, match="no photo was localised"):
        write_all([], flat_frame, tmp_path / "x")
    with pytest.raises(ValueError, match="the geodata in WGS 84 / UTM zone 33N"):
        write_all([make_answer()], flat_frame, tmp_path / "x", make_scene(code="EPSG:32633"))
    with pytest.raises(ValueError, match="have the origin"):
        write_all([make_answer()], {**flat_frame, "origin_xyz": [0, 0, 0]}, tmp_path / "x", flat)
    assert not (tmp_path / "x").exists()


def test_brighton_beach_lies_where_its_gnss_says(brighton_beach, tmp_path):
    """The photos' poses were aligned to their GNSS positions around 46.84265667 N 91.99400802 W, residual 0.2 to 0.3 m.

    The expected places come from geodesics on the ellipsoid, not from the projection that the export uses.
    """
    surface = GeoScene.open(brighton_beach / "geodata/dsm.tif", brighton_beach / "geodata/ortho.tif")
    cameras = read_cameras_json(brighton_beach / "cameras.json")
    answers = [
        replace(
            make_answer(camera.file),
            world_from_cam_44=surface.to_world(camera.world_from_cam_44),
            K_33=camera.K_33,
            size_wh=(camera.width, camera.height),
        )
        for camera in cameras
    ]
    write_all(answers, frame_of(surface), tmp_path, surface)
    content = json.loads((tmp_path / "answers.geojson").read_text())
    geod = pyproj.Geod(ellps="WGS84")
    for feature, camera in zip(content["features"], cameras, strict=False):
        east, north = camera.world_from_cam_44[:2, 3]
        lon, lat, _ = geod.fwd(-91.99400802, 46.84265667, np.rad2deg(np.arctan2(east, north)), np.hypot(east, north))
        _, _, off_m = geod.inv(lon, lat, *feature["geometry"]["coordinates"][:2])
        assert off_m < 0.02, camera.file
        assert 30 < feature["properties"]["above_ground_m"] < 55  # flown at 48 m, over trees too
    footprints = [f for f in content["features"] if f["geometry"]["type"] == "Polygon"]
    assert len(footprints) == len(cameras) == 18
