"""Labelled point clouds: classes of the ground, and walls and crowns that a height grid cannot hold."""

from __future__ import annotations

import numpy as np
import pytest

from datagen import point_cloud
from datagen.__main__ import main
from datagen.cameras import centred_intrinsics
from datagen.flights import pose_of
from datagen.render import Renderer
from datagen.scene import GeoScene

from .synthetic import LEFT, TOP, quarter_codes

laspy = pytest.importorskip("laspy", reason="the package laspy is not installed")
K_33 = centred_intrinsics(100.0, 96, 64)
# World x, y of the synthetic scenes count from here.
ORIGIN = np.array([LEFT + 100, TOP - 100, 0.0])


def write_cloud(path, xyz_N3, codes_N, *, rgb_N3=None, epsg=2056):
    header = laspy.LasHeader(point_format=3, version="1.4")
    header.scales, header.offsets = np.full(3, 1e-3), np.floor(xyz_N3.min(axis=0))
    if epsg:
        from pyproj import CRS

        header.add_crs(CRS.from_epsg(epsg))
    cloud = laspy.LasData(header)
    cloud.x, cloud.y, cloud.z = xyz_N3.T
    cloud.classification = codes_N
    if rgb_N3 is not None:
        cloud.red, cloud.green, cloud.blue = rgb_N3.T.astype(np.uint16) << 8
    cloud.write(str(path))
    return path


@pytest.fixture(scope="module")
def flat(make_geodata):
    return make_geodata(height=lambda x, y: 0 * x + 0 * y)


def ground_points(step=1.0, codes=quarter_codes):
    x, y = (a.ravel() for a in np.meshgrid(np.arange(-95, 95, step) + 0.3, np.arange(-95, 95, step) + 0.3))
    return np.column_stack((x, y, 0 * x)), codes(x, y).astype(np.uint8)


@pytest.mark.parametrize("suffix", ["las", "laz"])
def test_classes_of_the_ground(flat, tmp_path, suffix):
    """Nearest point in space: a crown's points above do not reach the ground, noise never counts, 4 and 5 are vegetation."""
    if suffix == "laz":
        pytest.importorskip("lazrs", reason="the package lazrs is not installed")
    xyz, codes = ground_points()
    codes[codes == 3] = 5
    above = xyz[::7] + [0, 0, 15]
    noise = xyz[::5] + [0, 0, 0.01]
    points = np.concatenate((noise, xyz, above)) + ORIGIN
    labels = np.concatenate((np.full(len(noise), 7), codes, np.full(len(above), 6)))
    path = write_cloud(tmp_path / f"c.{suffix}", points, labels)
    cover = GeoScene.open(flat.surface, flat.ortho, path).landcover
    rng = np.random.default_rng(0)
    x, y = rng.uniform(-90, 90, (2, 500))
    away = np.minimum(np.abs(x), np.abs(y)) > 1.5
    assert np.array_equal(cover.at(x, y)[away], quarter_codes(x, y)[away])
    folder = tmp_path / "tiles"
    folder.mkdir()
    half = points[:, 0] < ORIGIN[0]
    write_cloud(folder / f"a.{suffix}", points[half], labels[half])
    write_cloud(folder / f"b.{suffix}", points[~half], labels[~half])
    assert np.array_equal(GeoScene.open(flat.surface, flat.ortho, folder).landcover.codes_rc, cover.codes_rc)


def test_a_wall_and_a_roof_with_nothing_below(flat, tmp_path):
    """A bridge deck 10 m up: from above one sees the deck, from the side what is under it. A height grid has curtains."""
    u, v = (a.ravel() for a in np.meshgrid(np.arange(-10, 10, 0.2), np.arange(-4, 4, 0.2)))
    deck = np.column_stack((u, v, np.full(len(u), 10.0)))
    ground, _ = ground_points()
    points = np.concatenate((deck, ground)) + ORIGIN
    codes = np.concatenate((np.full(len(deck), 17), np.full(len(ground), 2)))
    red = np.tile([[200, 10, 20]], (len(points), 1))
    path = write_cloud(tmp_path / "bridge.las", points, codes, rgb_N3=red)
    scene = GeoScene.open(flat.surface, flat.ortho, points=path)
    assert len(scene.splats.codes_K) < len(deck) + 5 and (scene.splats.codes_K == 17).all(), "the ground is known already"
    renderer = Renderer(scene)
    above = renderer.render(pose_of((0, 0, 60), (0, -90, 0)), K_33, 96, 64)
    assert above.depth_hw[4, 6] == pytest.approx(50, abs=0.02) and above.depth_hw[0, 0] == pytest.approx(60, abs=0.02)
    assert above.semantics_HW[32, 48] == 17 and above.semantics_HW[2, 2] == 1
    assert np.allclose(above.normal_3hw[:, 4, 6], [0, 0, -1], atol=1e-3)
    assert np.abs(above.rgb_HW3[32, 48].astype(int) - [200, 10, 20]).max() <= 2
    # From 30 m south, 4 m up, level: under the deck to the ground behind it.
    side = renderer.render(pose_of((0, -30, 4), (0, -4, 0)), K_33, 96, 64)
    assert side.depth_hw[4, 6] > 34 and side.semantics_HW[36, 48] == 1
    facing = side.normal_3hw[:, side.semantics_HW[4::8, 4::8] == 17]
    assert facing.shape[1] > 0 and (facing[2] < 0.2).all(), "normals face the camera"
    # Labels project onto their cells from splats too.
    x = side.coords_3hw[0, 5, 6] / side.depth_hw[5, 6] * 100 + 48
    assert x == pytest.approx(6 * 8 + 4, abs=0.01)
    assert renderer.sight(pose_of((0, 0, 60), (0, -90, 0)), K_33, 96, 64).underside == 0


def test_clouds_in_another_crs_and_without_one(flat, tmp_path, caplog):
    from datagen.flights import converted_with_north
    from datagen.frames import declared

    xyz, codes = ground_points(2.0)
    lv95 = xyz + ORIGIN
    utm = lv95.copy()
    utm[:, :2] = converted_with_north(lv95[:, :2], declared("EPSG:2056"), declared("EPSG:32632"))[0]
    caplog.set_level("INFO")
    found = [
        point_cloud.read_point_cloud([path], declared("EPSG:2056"), None, (LEFT, TOP - 200, LEFT + 200, TOP), 0.1)
        for path in (
            write_cloud(tmp_path / "a.las", lv95, codes),
            write_cloud(tmp_path / "b.las", utm, codes, epsg=32632),
            write_cloud(tmp_path / "c.las", lv95, codes, epsg=None),
        )
    ]
    assert "c.las declares no CRS: taken as EPSG:2056" in caplog.text
    for cloud in found:
        assert len(cloud.xyz_N3) == len(lv95) and cloud.rgb_N3 is None
        assert np.abs(np.sort(cloud.xyz_N3[:, 0]) - np.sort(lv95[:, 0])).max() < 5e-3
    thin = point_cloud.read_point_cloud(
        [tmp_path / "a.las"], declared("EPSG:2056"), None, (LEFT, TOP - 200, LEFT + 100, TOP), 10.0
    )
    assert len(thin.xyz_N3) == 10 * 20 and (thin.xyz_N3[:, 0] <= LEFT + 100).all()


def test_bad_clouds(flat, tmp_path, capsys, monkeypatch):
    def refused(message, *more):
        words = ["--scene", "s", "--output_dir", str(tmp_path / "out"), "--poses", str(poses)]
        layers = ["--surface", flat.surface, "--ortho", flat.ortho]
        assert main(["sections", *map(str, [*layers, *more]), *words]) == 2
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert error.startswith("error: ") and message in error and not (tmp_path / "out").exists()

    poses = tmp_path / "poses"
    poses.mkdir()
    np.savetxt(poses / "a.txt", pose_of((0, 0, 60), (0, -90, 0)))
    xyz, codes = ground_points(4.0)
    good = write_cloud(tmp_path / "good.las", xyz + ORIGIN, codes)
    strange = write_cloud(tmp_path / "strange.las", xyz + ORIGIN, np.full(len(codes), 11))
    refused("LAS codes [11] have no class", "--landcover", strange)
    refused("no point inside the surface model's extent", "--points", write_cloud(tmp_path / "far.las", xyz + 9e5, codes))
    refused("not a point cloud (.las, .laz)", "--points", flat.surface)
    refused("point clouds and rasters together are no layer", "--landcover", good, flat.landcover)
    refused("--point_spacing -1: give metres", "--points", good, "--point_spacing", "-1")
    (tmp_path / "cut.las").write_bytes(good.read_bytes()[:500])
    refused("cut.las: cannot be read, is it truncated?", "--points", tmp_path / "cut.las")
    monkeypatch.setattr(point_cloud, "_MAX_SPLATS", 3)
    refused("choose a larger --point_spacing", "--points", good)
