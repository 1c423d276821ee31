"""Photos in, answers and files out."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import rasterio
import torch
from PIL import Image, ImageOps

import localize as command
from datagen.provenance import Inputs
from datagen.scene_geodata import LAYERS, SceneGeodata, find_geodata, geodata_record
from dataloader.images import ImageHeader
from dataloader.scenes import PUBLISHED_SCENES
from geometry.poses import pose_error
from localization.answer import Answer
from localization.calibration import Sample, fit, write_calibration
from localization.command import LocalizeOptions, with_recorded_map
from localization.geodata import Geodata
from localization.intrinsics import intrinsics_from
from localization.localizer import Localizer, Model
from localization.matchers import sift_pairs
from localization.photos import Photo, find_sources, photos_of, read_photo, upright
from localization.writing import write_answers
from networks import Architecture, TransPoseNet, save_network
from records.files import write_json
from runs.record import CameraRecord, write_sidecar
from tests.evaluation.conftest import COLOURS, make_record
from training.identity import frame_of, geodata_of

from .conftest import HEIGHT, WIDTH, Landscape, pose

CPU = torch.device("cpu")
PLACES = [(-30.0, 10.0), (25.0, -15.0), (0.0, 30.0)]


class TrueCoordinates:
    """Stands for a network: what the landscape's renders know, with a shift that a network could make."""

    stride = 8

    def __init__(self, landscape: Landscape, poses: list[np.ndarray], shift_3=(1.5, -1.0, 0.5)):
        renderer = landscape.flown
        views = [renderer.render(p, landscape.K_33, WIDTH, HEIGHT).coords_3hw for p in poses]
        self._coords = torch.from_numpy(np.stack(views)) + torch.tensor(shift_3)[:, None, None]
        self.batches: list[int] = []
        self._next = 0

    def __call__(self, images_B3HW):
        count = len(images_B3HW)
        self.batches.append(count)
        coords = self._coords[self._next : self._next + count]
        self._next += count
        return coords, torch.ones_like(coords[:, :1])


def record_for(landscape: Landscape, **changes):
    statistics = replace(PUBLISHED_SCENES["urbanscape"], mean_coord=(0.0, 0.0, 0.0))
    preprocessing = replace(COLOURS, image_height=HEIGHT)
    return make_record("run", frame=landscape.frame, statistics=statistics, preprocessing=preprocessing, **changes)


def localizer_for(landscape: Landscape, poses: list[np.ndarray], geodata: Geodata | None, calibrations=None) -> Localizer:
    record = record_for(landscape)
    model = Model(TrueCoordinates(landscape, poses), record.preprocessing, record, CPU, calibrations or {})
    return Localizer(model, geodata=geodata)


def error_m(answer, true_44: np.ndarray) -> float:
    return pose_error(torch.from_numpy(answer.world_from_cam_44), torch.from_numpy(true_44))[0]


@pytest.fixture(scope="module")
def weights(landscape, tmp_path_factory) -> Path:
    """Random weights with a record of this landscape, beside the photos that they know nothing of."""
    path = tmp_path_factory.mktemp("weights") / "model.net"
    torch.manual_seed(0)
    save_network(TransPoseNet(Architecture(tiny=True)), path)
    write_sidecar(path, record_for(landscape))
    return path


@pytest.fixture
def photo_folder(landscape, tmp_path) -> Path:
    folder = tmp_path / "flight"
    (folder / "second").mkdir(parents=True)
    for number, name in enumerate(("a.png", "b.jpg", "second/a.png")):
        image_HW3 = landscape.photo(pose(landscape, *PLACES[number]), number)
        cv2.imwrite(str(folder / name), image_HW3[..., ::-1])
    (folder / "broken.png").write_bytes(b"no picture")
    (folder / "._a.png").write_bytes(b"of another system")
    return folder


def test_coarse_answers_become_refined_ones_in_order(landscape):
    poses = [pose(landscape, *place) for place in PLACES]
    photos = [Photo(f"{i}.png", landscape.photo(p, i), landscape.K_33, 7.0 + i) for i, p in enumerate(poses)]
    coarse = localizer_for(landscape, poses, None).localize(photos)
    geodata = Geodata.open(landscape.surface, landscape.ortho, landscape.frame)
    refined = localizer_for(landscape, poses, geodata).localize(photos)
    for number, (before, after, true_44) in enumerate(zip(coarse, refined, poses, strict=True)):
        assert before.stage == "coarse" and before.coarse is None and before.success and before.confidence > 0.5
        assert error_m(before, true_44) == pytest.approx(np.linalg.norm((1.5, -1.0, 0.5)), abs=0.1)
        assert after.stage == "refined" and after.verdict == "ok" and after.name == f"{number}.png"
        assert np.array_equal(after.coarse.world_from_cam_44, before.world_from_cam_44)
        assert error_m(after, true_44) < 0.5
        assert after.size_wh == (WIDTH, HEIGHT) and after.time_s == 7.0 + number and after.sigma == 1.0
        assert after.seconds > after.coarse.seconds > 0
        assert np.sqrt(np.trace(after.covariance_66[3:, 3:])) < 0.5
        assert after.map_m == geodata.error_m and before.map_m == 0.0


def test_photos_of_one_size_share_a_pass(landscape):
    poses = [pose(landscape, *PLACES[0])] * 6
    localizer = localizer_for(landscape, poses, None)
    photos = [Photo(f"{i}", landscape.photo(poses[0]), landscape.K_33) for i in range(6)]
    assert [answer.name for answer in localizer.localize(photos)] == [photo.name for photo in photos]
    assert localizer._model.forward.batches == [4, 2]


class KnowsOneShape(TrueCoordinates):
    """Knows pictures that are wider than high, and the others not at all."""

    def __call__(self, images_B3HW):
        height, width = images_B3HW.shape[2:]
        if width > height:
            return self._coords[:1], torch.ones_like(self._coords[:1, :1])
        noise = 100 * torch.randn(1, 3, height // 8, width // 8, generator=torch.Generator().manual_seed(0))
        return noise, torch.ones_like(noise[:, :1])


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_a_photo_that_looks_down_may_be_turned_by_chance(landscape, orientation):
    """Its pose is that of the upright picture, be it found there or as stored: points fall onto their turned pixels."""
    true_44 = pose(landscape, 0.0, 0.0, pitch=-90.0)
    stored_HW3 = landscape.photo(true_44)
    image_HW3, K_33 = upright(stored_HW3, landscape.K_33, orientation)
    photo = Photo("a.jpg", image_HW3, K_33, None, orientation)
    np.testing.assert_array_equal(photo.as_stored().image_HW3, stored_HW3)
    record = record_for(landscape)
    network = KnowsOneShape(landscape, [true_44], (0.0, 0.0, 0.0))
    (answer,) = Localizer(Model(network, record.preprocessing, record, CPU)).localize([photo])
    assert answer.verdict == "ok" and answer.size_wh == image_HW3.shape[1::-1] and np.array_equal(answer.K_33, K_33)
    points_N3 = np.random.default_rng(0).uniform((-20, -20, -5), (20, 20, 5), (9, 3))

    def projected(world_from_cam_44, K_33):
        camera_N3 = (points_N3 - world_from_cam_44[:3, 3]) @ world_from_cam_44[:3, :3]
        return (camera_N3 @ K_33.T)[:, :2] / camera_N3[:, 2:]

    x, y = projected(true_44, landscape.K_33).T
    # This network cannot tell a picture from itself upside down, so that nothing is surer and it stays as it was turned.
    turned = {1: (x, y), 3: (x, y), 6: (HEIGHT - y, x), 8: (y, WIDTH - x)}[orientation]
    np.testing.assert_allclose(projected(answer.world_from_cam_44, answer.K_33), np.stack(turned, 1), atol=0.3)
    assert answer.covariance_66.trace() < 0.1


def test_geodata_of_another_place_are_refused(landscape):
    geodata = Geodata.open(landscape.surface, landscape.ortho, landscape.frame)
    record = record_for(landscape)
    record = replace(record, statistics=replace(record.statistics, mean_coord=(0.0, 5000.0, 0.0)))
    with pytest.raises(ValueError, match="of another place: they cover x .* and the network was trained around"):
        Localizer(Model(None, record.preprocessing, record, CPU), geodata=geodata)


def test_geodata_far_from_the_network_are_of_another_place(landscape):
    far = {**landscape.frame, "origin_xyz": [0.0, 0.0, 0.0]}
    with pytest.raises(ValueError, match=r"of another place: they lie hundreds of kilometres from the origin \(0, 0, 0\)"):
        Geodata.open(landscape.surface, landscape.ortho, far)


def test_geodata_without_a_crs_are_in_the_networks(landscape, tmp_path):
    bare = []
    for path in (landscape.surface, landscape.ortho):
        with rasterio.open(path) as source:
            profile, bands = {**source.profile, "crs": None}, source.read()
        bare.append(tmp_path / path.name)
        with rasterio.open(bare[-1], "w", **profile) as target:
            target.write(bands)
    geodata = Geodata.open(*bare, landscape.frame)
    assert geodata.scene.crs == landscape.surveyed.crs
    assert geodata.scene.height_at(0.0, 0.0) == landscape.surveyed.height_at(0.0, 0.0)


def test_verdicts_are_those_of_the_weights_calibration(landscape):
    """Nothing is ok to a calibration that wants more than any probability; refined poses are not its business."""
    true_44 = pose(landscape, *PLACES[0])
    photos = [Photo("a.png", landscape.photo(true_44), landscape.K_33)]
    taught = fit([Sample(0.9, np.diag([1e-6] * 3 + [0.01] * 3), True, np.full(3, 0.1), np.full(3, 1e-3), 1.0)], [], 5.0, {})
    strict = replace(taught, ok_above=1.1, failed_below=0.0, position_scale=3.0, common=0.0)
    localizer = localizer_for(landscape, [true_44], None)
    (plain,) = localizer.localize(photos)
    (judged,) = localizer_for(landscape, [true_44], None, {"coarse": strict}).localize(photos)
    assert (plain.verdict, judged.verdict) == ("ok", "doubtful")
    assert judged.confidence == strict.judge(plain.confidence, plain.covariance_66, True, 1.0).probability
    assert np.allclose(judged.covariance_66[3:, 3:], 9 * plain.covariance_66[3:, 3:])
    geodata = Geodata.open(landscape.surface, landscape.ortho, landscape.frame)
    (refined,) = localizer_for(landscape, [true_44], geodata, {"coarse": strict}).localize(photos)
    assert refined.stage == "refined" and refined.verdict == "ok" and refined.coarse.verdict == "doubtful"


def test_calibrations_beside_the_weights_are_found(landscape, weights, tmp_path, caplog):
    path = tmp_path / "model.net"
    shutil.copy(weights, path)
    shutil.copy(weights.with_suffix(".json"), path.with_suffix(".json"))
    calibration = fit([Sample(0.9, np.eye(6), True, np.zeros(3), np.zeros(3), 1.0)], [], 5.0, {})
    write_calibration(path, calibration, "refined")
    with caplog.at_level("INFO"):
        localizer = Localizer.from_weights(path, device="cpu")
        assert localizer._model.calibrations == {"refined": calibration} and "verdicts" not in caplog.text
        with_map = {"surface": landscape.surface, "ortho": landscape.ortho}
        assert Localizer.from_weights(path, device="cpu", refine="sift", **with_map)._matcher is sift_pairs
    assert Localizer.from_weights(path, device="cpu", refine="off", **with_map).geodata is None
    with pytest.raises(ValueError, match="refine must be one of off, ncc, sift, aliked, got 'SIFT'"):
        Localizer.from_weights(path, device="cpu", refine="SIFT", **with_map)
    assert "verdicts on refined poses: calibrated on 1 photos" in caplog.text


def test_priors_that_no_photo_has_are_said(weights, photo_folder, tmp_path, capsys, caplog):
    words = ("--network_in", weights, "--image", photo_folder, "--intrinsics", 160, "--output_dir", tmp_path / "out")
    with caplog.at_level("INFO"):
        assert run(*words, "--gravity_sigma", 2, capsys=capsys)[0] == 0
    assert "priors: the files of 0 of 3 photos say what was asked for" in caplog.text


def moved_set(landscape: Landscape, weights: Path, folder: Path) -> tuple[Path, Path]:
    """(weights, scene folder): a data set's folder with its geodata in it, and weights whose record knows them."""
    scene_dir, path = folder / "datasets" / "scene", folder / "model.net"
    (scene_dir / "geodata").mkdir(parents=True)
    for source in (landscape.surface, landscape.ortho):
        shutil.copy(source, scene_dir / "geodata" / source.name)
    shutil.copy(weights, path)
    files = [scene_dir / "geodata" / source.name for source in (landscape.surface, landscape.ortho)]
    scene = landscape.frame | {"geodata": geodata_record(scene_dir, *files, Inputs())}
    assert [scene["geodata"][layer]["files"] for layer in LAYERS] == [[f"geodata/{path.name}"] for path in files]
    write_json(scene_dir / "scene.json", scene)
    record = record_for(landscape, geodata=geodata_of(scene_dir))
    assert frame_of(scene_dir) == landscape.frame, "where the map lies decides nothing"
    write_sidecar(path, record)
    return path, scene_dir


def test_the_map_recorded_with_the_weights_refines(landscape, weights, photo_folder, tmp_path, capsys, caplog):
    path, scene_dir = moved_set(landscape, weights, tmp_path)
    photo = photo_folder / "a.png"
    words = ("--network_in", path, "--image", photo, "--intrinsics", 160, "--output_dir", tmp_path / "out")
    with caplog.at_level("INFO"):
        assert run(*words, capsys=capsys)[0] == 0
    assert "map, as recorded with the weights" in caplog.text and "1 photo: 1 failed; 0 refined by the map" in caplog.text
    assert Localizer.from_weights(path, device="cpu").geodata is not None
    assert Localizer.from_weights(path, device="cpu", recorded=False).geodata is None


def test_a_recorded_map_that_moved_or_changed(landscape, weights, tmp_path, caplog, monkeypatch):
    path, scene_dir = moved_set(landscape, weights, tmp_path)

    def refines(**changes) -> bool:
        caplog.clear()
        return with_recorded_map(LocalizeOptions(path, tmp_path, **changes)).refines

    assert refines() and not refines(refine="off")
    assert with_recorded_map(LocalizeOptions(weights, tmp_path)).surface == (), "weights as they were made before"
    elsewhere = scene_dir.rename(tmp_path / "elsewhere")
    assert not refines()
    assert f"cannot be used: {scene_dir / 'geodata' / landscape.surface.name} is missing; poses are" in caplog.text
    assert refines(scene_dir=elsewhere)
    monkeypatch.setenv("DATASETS_DIR", str(tmp_path))
    elsewhere = elsewhere.rename(tmp_path / "scene")
    assert refines()
    with rasterio.open(elsewhere / "geodata" / landscape.ortho.name, "r+") as ortho:
        ortho.write(255 - ortho.read(1), 1)
    assert not refines()
    assert f"{landscape.ortho.name} has changed; poses are not refined" in caplog.text
    with pytest.raises(ValueError, match="--refine ncc needs the map"):
        refines(refine="ncc")
    with pytest.raises(ValueError, match="--height_unit is of the heights of --surface"):
        refines(height_unit="metre")


def test_a_data_set_says_what_it_was_made_from(landscape, tmp_path):
    """Where both can move together by a path in between, else as it is; the unit that heights had to be given, too."""
    scene_dir = landscape.surface.parent / "datasets" / "scene"
    record = geodata_record(scene_dir, [landscape.surface], landscape.ortho, Inputs(), "us-foot")
    assert record["surface"]["files"] == [f"../../{landscape.surface.name}"]
    found = find_geodata(record, [tmp_path, scene_dir])
    assert found == SceneGeodata((landscape.surface,), (landscape.ortho,), "us-foot")
    with pytest.raises(ValueError, match="is damaged"):
        find_geodata({"surface": {}}, [scene_dir])


def run(*words, capsys) -> tuple[int, str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["localize.py", *map(str, words)])
        code = command.main()
    return code, capsys.readouterr().err


def test_the_command_from_folder_to_files(landscape, weights, photo_folder, tmp_path, capsys):
    out = tmp_path / "new" / "answers"
    code, _ = run(
        "--network_in", weights, "--image", photo_folder, "--intrinsics", 160, 160, 120, 80, "--surface", landscape.surface,
        "--ortho", landscape.ortho, "--output_dir", out, capsys=capsys,
    )  # fmt: skip
    assert code == 0
    content = json.loads((out / "answers.json").read_text())
    assert [a["name"] for a in content["answers"]] == ["a.png", "b.jpg", "second/a.png"]
    assert list(content["skipped"]) == ["broken.png"] and "cannot decode" in content["skipped"]["broken.png"]
    assert content["frame"] == landscape.frame
    rows = list(csv.DictReader((out / "answers.csv").open()))
    assert [row["name"] for row in rows] == ["a.png", "b.jpg", "second/a.png"]
    for answer, row in zip(content["answers"], rows, strict=True):
        assert answer["verdict"] == row["verdict"] != "ok"  # random weights know nothing
        assert answer["size_wh"] == [WIDTH, HEIGHT] and answer["K_33"][0] == [160, 0, 120]
        written = out / "poses" / f"{answer['name'].rpartition('.')[0]}.txt"
        assert written.is_file() == (answer["world_from_cam_44"] is not None)
        if written.is_file():
            assert np.allclose(np.loadtxt(written), answer["world_from_cam_44"], atol=1e-8)


def test_maps_in_the_folder_are_no_photos(landscape, weights, photo_folder, tmp_path, capsys):
    shutil.copy(landscape.ortho, photo_folder / "ortho.tif")
    Image.open(photo_folder / "a.png").save(photo_folder / "c.tif")
    words = ("--network_in", weights, "--image", photo_folder, "--intrinsics", 160, "--output_dir", tmp_path / "out")
    assert run(*words, capsys=capsys)[0] == 0
    content = json.loads((tmp_path / "out/answers.json").read_text())
    assert [answer["name"] for answer in content["answers"]] == ["a.png", "b.jpg", "c.tif", "second/a.png"]
    assert content["skipped"]["ortho.tif"] == f"{photo_folder / 'ortho.tif'} is a map (GeoTIFF), not a photo"


def pose_files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder / "poses").as_posix() for path in folder.rglob("*.txt"))


def test_no_two_photos_share_a_pose_file_and_none_outlives_its_pose(tmp_path):
    def answer(name: str, x: float = 0.0, verdict: str = "ok") -> Answer:
        pose_44 = np.eye(4)
        pose_44[0, 3] = x
        return Answer(name, pose_44, np.eye(3), (2, 2), verdict, 0.5, np.eye(6), 1.0, 1.0, None, "coarse", 0.0)

    names = ("a/b.jpg", "a_b.jpg", "c.jpg", "v.mp4#000002")
    write_answers([answer(name) for name in names], None, {}, tmp_path)
    assert pose_files(tmp_path) == ["a/b.txt", "a_b.txt", "c.txt", "v.mp4#000002.txt"]
    write_answers([answer("a_b.jpg", 7.0), answer("c.jpg", verdict="failed")], None, {}, tmp_path)
    assert pose_files(tmp_path) == ["a/b.txt", "a_b.txt", "v.mp4#000002.txt"]
    assert np.loadtxt(tmp_path / "poses/a_b.txt")[0, 3] == 7.0
    write_answers([answer("a.jpg", 1.0), answer("a.png"), answer("d.jpg")], None, {}, tmp_path / "e")
    assert pose_files(tmp_path / "e") == ["a.jpg.txt", "a.png.txt", "d.jpg.txt"]
    assert np.loadtxt(tmp_path / "e/poses/a.jpg.txt")[0, 3] == 1.0


def bad_input(landscape, weights, photo_folder, tmp_path):
    """(words of the command, what the message must hold)."""
    other = tmp_path / "other.net"
    torch.save({"somebody": torch.ones(3)}, other)
    bare = tmp_path / "bare.net"
    shutil.copy(weights, bare)
    empty = tmp_path / "empty"
    empty.mkdir()
    section = tmp_path / "section"
    for name in ("poses", "calibration"):
        (section / name).mkdir(parents=True)
    wide = tmp_path / "wide.json"
    wide.write_text(json.dumps({"width": 1000, "height": 100, "focal_length_px": 500}))
    blocked = tmp_path / "file"
    blocked.write_text("")
    numbers = ("--intrinsics", 160)
    map_files = ("--surface", landscape.surface, "--ortho", landscape.ortho)
    photo = photo_folder / "a.png"
    return [
        (("--network_in", other, "--image", photo, *numbers), "other.net"),
        (("--network_in", tmp_path / "none.net", "--image", photo, *numbers), "weights file not found"),
        (("--network_in", bare, "--image", photo, *numbers), "has no record"),
        (("--network_in", weights, "--image", photo_folder / "broken.png", *numbers), "cannot decode image"),
        (("--network_in", weights, "--image", tmp_path / "nowhere", *numbers), "no such photo, folder or video"),
        (("--network_in", weights, "--image", empty, *numbers), "holds no photo"),
        (("--network_in", weights, "--image", photo), "no intrinsics: the EXIF of a.png names no focal length"),
        (("--network_in", weights, "--image", photo, "--intrinsics", 1, 2), "one number (f) or four"),
        (("--network_in", weights, "--image", photo, "--intrinsics", "-3"), "must be positive"),
        (("--network_in", weights, "--image", photo, "--intrinsics", "lost.txt"), "lost.txt: no such file"),
        (("--network_in", weights, "--image", photo, *numbers, "--output_dir", blocked), "cannot write answers into"),
        (("--network_in", weights, "--image", photo, *numbers, "--output_dir", section), "would replace its true poses"),
        (("--network_in", weights, "--image", photo, "--intrinsics", wide), "a.png: "),
        (("--network_in", weights, "--image", photo, *numbers, *map_files[:2]), "--surface and --ortho go together"),
        (("--network_in", weights, "--image", photo, *numbers, "--refine", "ncc"), "--refine ncc needs the map"),
        (("--network_in", weights, "--image", photo, *numbers, "--refine", "aliked"), "--refine aliked needs the map"),
        (
            ("--network_in", weights, "--image", photo, *numbers, *map_files, "--locate", 240.5, 1),
            "they have 240 x 160 pixels",
        ),
        (("--network_in", weights, "--image", photo, *numbers, "--height_above_ground", 100, 5), "needs the geodata"),
        (("--network_in", weights, "--image", photo, *numbers, "--gravity_sigma", 1, "--solver", "published"), "no priors"),
        (("--network_in", weights, "--image", photo, *numbers, "--surface", photo, "--ortho", photo), "a.png"),
    ]


def test_bad_input_ends_in_one_line_and_leaves_nothing(landscape, weights, photo_folder, tmp_path, capsys):
    for number, (words, message) in enumerate(bad_input(landscape, weights, photo_folder, tmp_path)):
        out = tmp_path / f"out{number}"
        if "--output_dir" not in words:
            words = (*words, "--output_dir", out)
        code, error = run(*words, capsys=capsys)
        assert code == 2 and message in error, (words, error)
        assert error.splitlines()[-1].startswith("error: ") and "Traceback" not in error
        assert not out.exists()


def test_weights_of_another_task_are_refused(tmp_path):
    path = tmp_path / "depth.net"
    save_network(TransPoseNet(Architecture(task_channels=1, tiny=True)), path)
    with pytest.raises(ValueError, match="task depth; poses come from coord networks"):
        Localizer.from_weights(path, device="cpu")


def test_a_video_is_localised_by_its_frames(landscape, weights, tmp_path, capsys):
    video = tmp_path / "flight.avi"
    writer = cv2.VideoWriter(str(video), cv2.VideoWriter_fourcc(*"MJPG"), 10, (WIDTH, HEIGHT))
    image_HW3 = landscape.photo(pose(landscape, *PLACES[0]))
    for _ in range(5):
        writer.write(image_HW3[..., ::-1])
    writer.release()
    photos = list(photos_of(find_sources(video)[0], intrinsics_from(["160"], None), 2))
    assert [photo.name for photo in photos] == ["flight.avi#000000", "flight.avi#000002", "flight.avi#000004"]
    assert np.diff([photo.time_s for photo in photos]) == pytest.approx([0.2, 0.2])
    assert np.abs(photos[1].image_HW3.astype(int) - image_HW3).mean() < 12
    code, _ = run(
        "--network_in", weights, "--image", video, "--intrinsics", 160, "--every", 4, "--output_dir", tmp_path / "o",
        capsys=capsys,
    )  # fmt: skip
    content = json.loads((tmp_path / "o" / "answers.json").read_text())
    assert code == 0 and [a["name"] for a in content["answers"]] == ["flight.avi#000000", "flight.avi#000004"]


def exif_photo(path: Path, size, orientation=1, **tags) -> Path:
    exif = Image.Exif()
    exif[0x0112] = orientation
    names = {"f35": 0xA405, "f": 0x920A, "resolution": 0xA20E, "unit": 0xA210, "taken": 0x9003, "offset": 0x9011}
    exif.get_ifd(0x8769).update({names[name]: value for name, value in tags.items()})
    Image.fromarray(np.arange(size[0] * size[1] * 3, dtype=np.uint32).reshape(size[1], size[0], 3).astype(np.uint8)).save(
        path, exif=exif
    )
    return path


def test_intrinsics_from_exif(tmp_path):
    given = intrinsics_from(["exif"], None)
    photo = read_photo(
        exif_photo(tmp_path / "a.jpg", (400, 300), f35=24, taken="2024:05:06 07:08:09", offset="+02:00"), given
    )
    # 24 mm on a film whose diagonal is 43.2666 mm; the photo's is 500 px.
    assert photo.K_33[0, 0] == pytest.approx(277.35, abs=0.01) and tuple(photo.K_33[:2, 2]) == (200, 150)
    assert photo.time_s == 1714972089.0
    # 8.8 mm at 3000 px per cm.
    photo = read_photo(exif_photo(tmp_path / "b.jpg", (400, 300), f=8.8, resolution=300.0, unit=3), given)
    assert photo.K_33[1, 1] == pytest.approx(264.0)
    with pytest.raises(ValueError, match="no intrinsics: the EXIF of c.jpg"):
        read_photo(exif_photo(tmp_path / "c.jpg", (400, 300)), given)
    one = CameraRecord(1.0, 1.01, 1.33, 1.34)
    assert read_photo(tmp_path / "c.jpg", intrinsics_from(["exif"], one)).K_33[0, 0] == pytest.approx(301.5)
    with pytest.raises(ValueError, match="no intrinsics"):
        read_photo(tmp_path / "c.jpg", intrinsics_from(["exif"], replace(one, focal_max=1.5)))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turned_photos_are_upright_with_their_intrinsics(tmp_path, orientation):
    """The pixel that the stored camera's principal point lies in is the same one afterwards."""
    stored_HW3 = np.random.default_rng(0).integers(0, 255, (30, 40, 3), dtype=np.uint8)
    K_33 = np.array([[50.0, 0, 12.5], [0, 60.0, 7.5], [0, 0, 1]])
    turned_HW3, turned_33 = upright(stored_HW3, K_33, orientation)
    cx, cy = turned_33[:2, 2]
    assert np.array_equal(turned_HW3[int(cy), int(cx)], stored_HW3[7, 12])
    assert (turned_33[0, 0], turned_33[1, 1]) == ((60, 50) if orientation >= 5 else (50, 60))
    path = tmp_path / "turned.png"
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(stored_HW3).save(path, exif=exif)
    with Image.open(path) as image:
        assert np.array_equal(turned_HW3, np.asarray(ImageOps.exif_transpose(image)))
    photo = read_photo(path, intrinsics_from(["50", "60", "12.5", "7.5"], None))
    assert np.array_equal(photo.image_HW3, turned_HW3) and np.allclose(photo.K_33, turned_33)


def test_intrinsics_from_files(tmp_path):
    header = ImageHeader(400, 300, 1)
    photo = Path("IMG.jpg")

    def camera(name: str, content: str):
        path = tmp_path / name
        path.write_text(content)
        return intrinsics_from([str(path)], None).camera_of(photo, header)

    assert tuple(camera("f.txt", "321").K_33[(0, 1, 0, 1), (0, 1, 2, 2)]) == (321, 321, 200, 150)
    assert tuple(camera("four.txt", "300 310 190 140").K_33[(0, 1, 0, 1), (0, 1, 2, 2)]) == (300, 310, 190, 140)
    # Of pictures of twice the size.
    found = camera("c.json", '{"width": 800, "height": 600, "focal_length_px": 700, "principal_point_px": [410, 290]}')
    assert np.allclose(found.K_33, [[350, 0, 205], [0, 350, 145], [0, 0, 1]]) and found.lens is None
    found = camera("cameras.txt", "# Camera list\n1 SIMPLE_RADIAL 800 600 700 400 300 -0.05\n")
    assert found.lens.model == "SIMPLE_RADIAL" and found.lens.parameters == (350, 200, 150, -0.05)
    assert (found.width, found.height) == (400, 300)
    with pytest.raises(ValueError, match="of another shape"):
        camera("wide.json", '{"width": 800, "height": 450, "focal_length_px": 700}')
    with pytest.raises(ValueError, match="'focal_length_px' is missing"):
        camera("none.json", '{"width": 800, "height": 450}')
    with pytest.raises(ValueError, match="holds 2 cameras"):
        camera("two.txt", "1 PINHOLE 8 6 7 7 4 3\n2 PINHOLE 8 6 7 7 4 3\n")
    with pytest.raises(ValueError, match="not a table of numbers"):
        camera("words.txt", "not a calibration")


def test_distortion_is_undone(tmp_path):
    """A line that the lens bends is straight again."""
    import pycolmap

    bent = pycolmap.Camera(model="SIMPLE_RADIAL", width=400, height=300, params=[300, 200, 150, -0.15])
    x = (np.arange(400) + 0.5 - 200) / 300
    xy_px = bent.img_from_cam(np.stack((x, np.full(400, 0.3), np.ones(400)), 1))
    stored_HW3 = np.zeros((300, 400, 3), np.uint8)
    cv2.polylines(stored_HW3, [np.round((xy_px - 0.5) * 16).astype(np.int32)], False, (255, 255, 255), 3, cv2.LINE_AA, 4)
    Image.fromarray(stored_HW3).save(tmp_path / "bent.png")
    (tmp_path / "cameras.txt").write_text("1 SIMPLE_RADIAL 400 300 300 200 150 -0.15\n")
    photo = read_photo(tmp_path / "bent.png", intrinsics_from([str(tmp_path / "cameras.txt")], None))
    rows_W = np.array([np.average(np.arange(300) + 0.5, weights=photo.image_HW3[:, c, 0] + 1e-9) for c in range(30, 370)])
    expected_px = photo.K_33[1, 2] + 0.3 * photo.K_33[1, 1]
    assert np.abs(rows_W - expected_px).max() < 0.3
    assert np.ptp(xy_px[30:370, 1]) > 3
