"""Facts of photo files that are written here byte by byte, and what the solver makes of them."""

from __future__ import annotations

import numpy as np
import pyproj
import pytest
import torch
from PIL import Image
from rasterio.crs import CRS

import dsacstar
from datagen.rasters import Grid
from datagen.scene import GeoScene
from datagen.texture import Texture
from geometry.attitude import enu_from_camera
from localization.priors import PhotoFacts, PriorOptions, priors_of, read_facts

FRAME = {"crs": "EPSG:32632", "origin_xyz": [351_200.0, 5_137_000.0, 500.0]}
XMP = """<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description drone-dji:GimbalPitchDegree="-62.50"
 drone-dji:GimbalRollDegree="+1.5" drone-dji:GimbalYawDegree="-171.30" drone-dji:RelativeAltitude="+80.10"
 drone-dji:RtkStdLon="0.02" drone-dji:RtkStdLat="0.03">{more}</rdf:Description></x:xmpmeta>"""


def write_photo(path, *, gps=None, details=None, xmp=""):
    """A JPEG with EXIF, and XMP in a segment of its own as cameras write it."""
    image, exif = Image.new("RGB", (16, 12)), Image.Exif()
    exif.get_ifd(0x8825).update(gps or {})
    exif.get_ifd(0x8769).update(details or {})
    image.save(path, exif=exif)
    if xmp:
        body = b"http://ns.adobe.com/xap/1.0/\0" + xmp.encode()
        content = path.read_bytes()
        path.write_bytes(content[:2] + b"\xff\xe1" + (len(body) + 2).to_bytes(2, "big") + body + content[2:])
    return path


def test_facts_of_a_complete_photo(tmp_path):
    gps = {1: "N", 2: (46.0, 30.0, 36.0), 3: "W", 4: (7.0, 15.0, 0.0), 5: b"\x00", 6: 612.5,
           7: (12.0, 30.0, 15.5), 29: "2024:05:06"}  # fmt: skip
    facts = read_facts(write_photo(tmp_path / "a.jpg", gps=gps, xmp=XMP.format(more="")))
    assert (facts.latitude_deg, facts.longitude_deg, facts.altitude_m) == pytest.approx((46.51, -7.25, 612.5))
    assert (facts.pitch_deg, facts.roll_deg, facts.yaw_deg, facts.above_take_off_m) == (-62.5, 1.5, -171.3, 80.1)
    assert facts.rtk_sigma_m == 0.03 and facts.time_s == 1_714_998_615.5  # 2024-05-06 12:30:15.5 UTC


def test_facts_of_incomplete_photos(tmp_path):
    assert read_facts(write_photo(tmp_path / "bare.jpg")) == PhotoFacts()
    clock = {0x9003: "2024:05:06 14:30:15", 0x9011: "+02:00", 0x9291: "25"}
    assert read_facts(write_photo(tmp_path / "clock.jpg", details=clock)).time_s == 1_714_998_615.25
    no_fix = {1: "N", 2: (0.0, 0.0, 0.0), 3: "E", 4: (0.0, 0.0, 0.0)}
    assert read_facts(write_photo(tmp_path / "zero.jpg", gps=no_fix)).latitude_deg is None
    elements = "<drone-dji:GpsLatitude>46.5</drone-dji:GpsLatitude><drone-dji:GpsLongtitude>7.25</drone-dji:GpsLongtitude>"
    facts = read_facts(write_photo(tmp_path / "xmp.jpg", xmp=XMP.format(more=elements)))
    assert (facts.latitude_deg, facts.longitude_deg) == (46.5, 7.25)
    below_sea = {5: b"\x01", 6: 12.0}
    assert read_facts(write_photo(tmp_path / "low.jpg", gps=below_sea)).altitude_m == -12
    damaged_time = {0x9003: "0000:00:00 00:00:00"}
    assert read_facts(write_photo(tmp_path / "time.jpg", details=damaged_time)).time_s is None


def test_files_that_are_no_photos(tmp_path):
    (tmp_path / "a.jpg").write_text("no image")
    with pytest.raises(ValueError, match=r"a\.jpg: not a readable image"):
        read_facts(tmp_path / "a.jpg")
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_facts(tmp_path / "b.jpg")


def test_positions_are_local_and_photos_without_one_are_left_alone():
    lon, lat = pyproj.Proj("EPSG:32632")(351_230.0, 5_137_010.0, inverse=True)
    facts = [PhotoFacts(lon, lat, 620.0), PhotoFacts(), PhotoFacts(lon, lat, rtk_sigma_m=0.05)]
    priors = priors_of(facts, FRAME, PriorOptions(gnss_sigma=3.0))
    mean_B3, covariance_B33 = priors.position
    np.testing.assert_allclose(mean_B3[0, :2], [30, 10], atol=1e-6)
    assert covariance_B33[0, 0, 0] == 9 and covariance_B33[0, 2, 2] >= 1e10  # the altitude was not asked for
    assert covariance_B33[1].diagonal().min() >= 1e10 and covariance_B33[2, 1, 1] == pytest.approx(0.0025)
    mean_B3, covariance_B33 = priors_of(facts, FRAME, PriorOptions(altitude_sigma=8.0)).position
    assert mean_B3[0, 2] == 120 and covariance_B33[0, 2, 2] == 64 and covariance_B33[0, 0, 0] >= 1e10
    assert priors_of([PhotoFacts()], FRAME, PriorOptions(gnss_sigma=3.0)) is None
    assert priors_of(facts, FRAME, PriorOptions()) is None


def test_gravity_needs_no_north():
    for yaw in (0.0, 123.0):
        R_33 = enu_from_camera(yaw, -62.5, 1.5)
        (down_3, _), (sigma, unknown) = priors_of(
            [PhotoFacts(pitch_deg=-62.5, roll_deg=1.5), PhotoFacts()], None, PriorOptions(gravity_sigma=2.0)
        ).gravity
        np.testing.assert_allclose(R_33 @ down_3, [0, 0, -1], atol=1e-12)
        assert sigma == 2 and unknown >= 1e4


def test_height_above_the_ground_below():
    grid = Grid(-50.0, 50.0, 1.0, 1.0, 100, 100)
    heights = np.broadcast_to(10 + 0.1 * (grid.left + 0.5 + np.arange(100)), (100, 100)).astype(np.float32)
    texture = Texture(np.zeros((100, 100, 3), np.uint8))
    surface = GeoScene(CRS.from_epsg(32632), tuple(FRAME["origin_xyz"]), grid, heights, grid, texture, None)
    lon, lat = pyproj.Proj("EPSG:32632")(351_220.0, 5_137_000.0, inverse=True)
    options = PriorOptions(height_above_ground=(80.0, 5.0))
    z_B, sigma_B = priors_of([PhotoFacts(lon, lat), PhotoFacts()], FRAME, options, surface).height
    assert z_B[0] == pytest.approx(92, abs=1e-3) and sigma_B[0] == 5 and sigma_B[1] >= 1e5
    with pytest.raises(ValueError, match="needs the geodata"):
        priors_of([PhotoFacts(lon, lat)], FRAME, options)
    with pytest.raises(ValueError, match="need a scene with a CRS"):
        priors_of([PhotoFacts(lon, lat)], None, PriorOptions(gnss_sigma=3.0))


def test_priors_help_hard_photos_and_harm_no_others():
    """Photos over flat ground, half of them with coordinates wrong by 4 m in patches; GNSS of 2 m, a gimbal of 1 deg."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:15, :22] * 8.0 + 4
    K = np.array([160.0, 160.0, 88.0, 60.0])
    maps, truths, facts = [], [], []
    for index in range(24):
        pose_44 = np.eye(4)
        pose_44[:3, :3] = enu_from_camera(rng.uniform(-180, 180), rng.uniform(-90, -70), rng.uniform(-2, 2))
        pose_44[:3, 3] = [*rng.uniform(-50, 50, 2), 100]
        rays = np.stack(((columns - K[2]) / K[0], (rows - K[3]) / K[1], np.ones_like(rows))).reshape(3, -1)
        rays = pose_44[:3, :3] @ rays
        points = pose_44[:3, 3:] + rays * (-pose_44[2, 3] / rays[2])
        noise = rng.normal(0, 0.5, points.shape)
        if index % 2:
            patches = rng.normal(0, 4.0, (3, 3, 4)).repeat(5, 1).repeat(6, 2)[:, :, :22]
            noise += patches.reshape(3, -1)
        maps.append((points + noise).reshape(3, 15, 22))
        truths.append(pose_44)
        true_pitch = -np.rad2deg(np.arcsin(-pose_44[2, 2]))
        lon, lat = pyproj.Proj("EPSG:32632")(*(pose_44[:2, 3] + rng.normal(0, 2, 2) + FRAME["origin_xyz"][:2]), inverse=True)
        roll = np.rad2deg(np.arcsin(pose_44[2, 0] / -np.cos(np.deg2rad(true_pitch)))) if true_pitch > -89 else 0.0
        facts.append(PhotoFacts(lon, lat, pitch_deg=true_pitch + rng.normal(0, 1), roll_deg=roll + rng.normal(0, 1)))
    coords = torch.from_numpy(np.stack(maps)).float()

    def errors(priors) -> np.ndarray:
        found = dsacstar.solve(coords, K, priors=priors, seed=1)
        return np.array([np.linalg.norm(r.pose[:3, 3] - t[:3, 3]) for r, t in zip(found, truths, strict=True)])

    without = errors(None)
    position = errors(priors_of(facts, FRAME, PriorOptions(gnss_sigma=2.0)))
    both = errors(priors_of(facts, FRAME, PriorOptions(gnss_sigma=2.0, gravity_sigma=1.0)))
    for found in (position, both):
        assert np.median(found[::2]) <= np.median(without[::2]) * 1.02 and np.median(found[1::2]) < 0.8 * np.median(
            without[1::2]
        )
    print(np.median(without[::2]), np.median(without[1::2]), np.median(position[1::2]), np.median(both[1::2]))
