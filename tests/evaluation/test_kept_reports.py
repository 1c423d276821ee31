"""What an evaluation decides and leaves, piece by piece, with networks and renders replaced."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from evaluation import html_report, predict, refining, run, trust
from evaluation.checkpoints import Weights, _has_weights_name, weights_in
from evaluation.coord import CoordFigures, CoordResult, _results_of, coord_results
from evaluation.error_curves import distinct_names, find_tables, read_errors
from evaluation.gathered import Gathered
from evaluation.html_report import write_html_report
from evaluation.options import DEFAULT_SECTIONS, EvaluationOptions, SelectionOptions, parse_options
from evaluation.predict import Prediction, sample_at_centres
from evaluation.refined import RefinedPose, refined_summary
from evaluation.reports import Subject, save_arrays
from evaluation.run import check_architecture
from evaluation.sections import SECTION_GROUPS, SECTION_ROLES, section_dirs, section_for
from evaluation.selection import _SHOWN, Candidate, export_path, select_and_export, table
from evaluation.task_table import EVALUATIONS
from evaluation.trust import ImageRecord, Interval, TrustFigures, write_metrics
from localization.calibration import Judgement, Reliability
from localization.refinement import Refinement
from localization.solving import EstimatedPose
from networks import Architecture
from runs.record import SectionRecord
from tests.evaluation.conftest import make_record, write_coord
from tests.evaluation.test_trust import result
from tests.kept import assert_kept
from tests.option_tables import declared

CPU = torch.device("cpu")


@pytest.mark.parametrize("cls", [EvaluationOptions, SelectionOptions])
def test_every_option(cls):
    assert_kept("options-of-evaluation", declared(cls), part=cls.__name__, exact=True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--overview", "o.png", "--section", "a"], None), (["--report", "o.html", "--section", "a"], None),
        (["--report", "o.html", "--section", "a", "b"], "--report shows one section of the coord task"),
        (["--task", "depth", "--report", "o.html", "--section", "a"], "--report shows one section"),
        (["--overview", "o.png"], "--overview draws one section of the coord task"),
        (["--calibrate", "--section", "val_a"], None), (["--calibrate", "--section", "a", "b"], "--calibrate learns from"),
        (["--task", "depth", "--calibrate", "--section", "a"], "--calibrate learns from one section of the coord task"),
        (["--calibrate", "--section", "testing"], "--calibrate on testing would make its figures worthless"),
        (["--calibrate", "--section", "a", "--error_bound", "2"], None),
        (["--surface", "s"], "go together"), (["--ortho", "s"], "go together"), (["--surface", "s", "--ortho", "o"], None),
        (["--refine", "ncc"], None), (["--refine", "off"], None),
        (["--refine", "ncc", "--surface", "s", "--ortho", "o"], None),
        (["--task", "depth", "--refine", "ncc", "--surface", "s", "--ortho", "o"], "--task depth has none"),
        (["--tiny", "--size", "tiny"], None), (["--tiny"], None), (["--size", "full"], None),
    ],
)  # fmt: skip
def test_flags_that_go_together(arguments, message):
    words = ["town", *([] if "--task" in arguments else ["--task", "coord"]), *arguments]
    if message is None:
        parse_options(words)
    else:
        with pytest.raises(ValueError, match=message):
            parse_options(words)


def test_what_follows_from_flags():
    def of(*words):
        return parse_options(["town-fullsize", "--task", "coord", *words])

    geodata = ["--surface", "s", "--ortho", "o"]
    assert [of(*words).refines for words in ([], geodata, [*geodata, "--refine", "off"], [*geodata, "--refine", "ncc"])] == [
        False, True, False, True,
    ]  # fmt: skip
    assert not replace(of(*geodata), task="depth").refines
    assert (of().criteria.size, of("--tiny").criteria.size, of("--size", "full").criteria.size) == (None, "tiny", "full")
    assert of().criteria.scene == "town" and of().section == DEFAULT_SECTIONS == ("val_drone_sim", "val_drone_real")
    assert of().asserted == {} and of("--grayscale").asserted == {"in_channels": 1}
    assert of("--fullsize", "--uncertainty", "none").asserted == {"fullsize": True, "uncertainty": "none"}


# ---- one image


def refined_pose(**of):
    covariance_66 = np.diag([1.0] * 3 + [0.01, 0.04, 0.04])
    values = dict(accepted=True, reason="", world_from_cam_44=np.eye(4), covariance_66=covariance_66,
                  confidence=0.9, inlier_share=0.8, score=0.7, gain=0.1, nearer_px=0.2,
                  agreement=0.6, rounds=4, seconds=0.5)  # fmt: skip
    return RefinedPose(Refinement(**values | of), 0.25, 0.125)


def shown(one, error_m=2.0, **of):
    """A result of `test_trust` with a camera."""
    K_33 = np.array([[20.0, 0, 12], [0, 20, 8], [0, 0, 1]])
    return replace(result(error_m, stem=f"val/{one}", **of), K_33=K_33)


def test_rows_and_arrays_of_an_image():
    plain, failed = shown("a"), shown("b", success=False)
    unlabelled = replace(plain, valid_hw=plain.valid_hw & False, sigma_hw=None, refined=refined_pose(covariance_66=None))
    silent = replace(
        plain, pose=replace(plain.pose, inliers=None, score=None), refined=refined_pose(accepted=False, reason="no")
    )
    assert_kept("coord-rows", [one.row() for one in (plain, failed, unlabelled, silent)], exact=True)
    assert_kept("coord-arrays", [plain.arrays("coord"), unlabelled.arrays("coord")])
    figures = CoordFigures()
    for one in (plain, failed, plain):
        figures.add(one)
    assert figures.refined is None and figures.summary().images == 3
    asked = CoordFigures()
    asked.add(silent)
    assert (asked.refined.images, asked.refined.accepted) == (1, 0)
    np.testing.assert_array_equal(np.isnan(figures.positions_N3), [[False] * 3, [True] * 3, [False] * 3])


def test_figures_of_refined_poses():
    poses = [replace(refined_pose(accepted=i != 1), translation_m=float(i), rotation_deg=float(i * i)) for i in range(4)]
    summary = refined_summary(poses, [1.0, 0.5, 2.0, 9.0])
    assert_kept("refined-summary", [summary, str(summary)], exact=True)


def test_results_of_a_batch_are_its_own():
    """The second of two images and networks: every array is that image's."""
    h, w = 2, 3
    values = torch.arange(2 * 3 * h * w, dtype=torch.float32).view(2, 3, h, w)
    batch = SimpleNamespace(stems=("s/a", "s/b"), labels_BChw=values + 100, valid_B1hw=values[:, :1] > 20, stride=8,
                            world_from_cam_B44=torch.eye(4).repeat(2, 1, 1),
                            K_B33=torch.stack([torch.eye(3), 2 * torch.eye(3)]))  # fmt: skip
    batch.world_from_cam_B44[1, 0, 3] = 5.0
    images = np.arange(2 * 4 * 4 * 3, dtype=np.uint8).reshape(2, 4, 4, 3)
    poses = [EstimatedPose(np.eye(4), False, 1), EstimatedPose(np.eye(4), True, 2)]
    prediction = Prediction(batch, images, values, values[:, :1] + 7, 8, 1)
    one, two = _results_of(prediction, SimpleNamespace(result=lambda: poses))
    assert (one.stem, one.translation_m, one.rotation_deg) == ("s/a", np.inf, np.inf)
    assert (two.stem, two.translation_m, two.rotation_deg, two.network) == ("s/b", 5.0, 0.0, 1)
    expected = {"coord_pred_3hw": values[1], "coord_true_3hw": values[1] + 100, "K_33": batch.K_B33[1],
                "valid_hw": batch.valid_B1hw[1, 0], "sigma_hw": values[1, 0] + 7}  # fmt: skip
    for name, array in expected.items():
        np.testing.assert_array_equal(getattr(two, name), array)
    assert np.array_equal(two.image_HW3, images[1]) and two.pose is poses[1] and two.pose_true_44.dtype == np.float64
    bare = next(_results_of(replace(prediction, sigma_B1hw=None), SimpleNamespace(result=lambda: poses)))
    assert bare.sigma_hw is None


def test_the_network_runs_two_batches_ahead_of_the_solver(monkeypatch):
    import evaluation.coord as coord

    events = []
    monkeypatch.setattr(coord, "solve_poses", lambda *of, **more: [])
    monkeypatch.setattr(coord, "_results_of", lambda prediction, future: [events.append("result")] and [prediction])

    def batches():
        for number in range(5):
            events.append(number)
            yield SimpleNamespace(
                prediction_BChw=None, sigma_B1hw=None, batch=SimpleNamespace(K_B33=None), stride=8, number=number
            )

    assert [found.number for found in coord_results(batches(), None)] == [0, 1, 2, 3, 4]
    assert events == [0, 1, 2, "result", 3, "result", 4, "result", "result", "result"]


# ---- running networks


def test_centres_of_larger_cells():
    ramp = torch.arange(48.0).view(1, 1, 6, 8)
    assert sample_at_centres(ramp, 2, 2, 4).flatten().tolist() == [13.5, 17.5, 41.5, 45.5]  # the last rows lie beyond
    labels = torch.zeros(1, 1, 3, 4)
    prediction = Prediction(SimpleNamespace(stride=8, labels_BChw=labels), None, ramp, None, 4)
    assert prediction.at_labels(ramp).shape == (1, 1, 3, 4) and prediction.at_labels(ramp)[
        0, 0, 0, 0
    ].item() == pytest.approx(4.5)
    assert replace(prediction, stride=8).at_labels(ramp) is ramp


def test_batches_go_through_all_networks(monkeypatch):
    """Images of one size share a batch; the bar counts images times networks."""
    events, bars, closed = [], [], []
    label = SimpleNamespace(map_Chw=torch.zeros(1, 1, 1), stride=8)
    samples = [SimpleNamespace(label=label, view=SimpleNamespace(image_HW3=np.zeros((2, width, 3)))) for width in (4, 4, 6)]

    class Loader:
        def __init__(self, dataset, size, **of):
            events.append((size, of))
            self.dataset = dataset

        def __iter__(self):
            return iter([self.dataset])

    class Forward:
        stride = 8

        def __init__(self, net, device, precision):
            self.net = net
            events.append((net.name, precision))

        def __call__(self, images):
            return f"{self.net.name} of {images}", None

        def close(self):
            closed.append(self.net.name)

    def collate(group):
        images = SimpleNamespace(numpy=lambda: "pictures")
        return SimpleNamespace(to=lambda device: "raw", stride=8, images_BHW3=images)

    class Bar:
        def __init__(self, **of):
            bars.append(of)

        def __enter__(self):
            return self

        def __exit__(self, *of):
            return False

        def update(self, count):
            bars.append(count)

    groups = iter([("a", "b"), ("c",)])
    monkeypatch.setattr(predict, "DataLoader", Loader)
    monkeypatch.setattr(predict, "Forward", Forward)
    monkeypatch.setattr(predict, "collate", collate)
    monkeypatch.setattr(predict, "tqdm", Bar)
    monkeypatch.setattr(
        predict, "prepare_for_evaluation", lambda *of: SimpleNamespace(stems=next(groups), images_B3HW="images")
    )
    nets = [SimpleNamespace(name=name, architecture=SimpleNamespace(task="coord")) for name in ("n0", "n1")]
    found = list(predict.predictions_of_many(nets, samples, None, device=CPU, precision="bf16", num_workers=2, title="t"))
    assert [(p.prediction_BChw, p.network, p.stride, p.images_BHW3) for p in found] == [
        ("n0 of images", 0, 8, "pictures"), ("n1 of images", 1, 8, "pictures"),
    ] * 2  # fmt: skip
    assert events == [("n0", "bf16"), ("n1", "bf16"), (4, {"collate_fn": list, "num_workers": 2})]
    assert bars == [{"total": 6, "desc": "t", "unit": "img", "dynamic_ncols": True}, 2, 2, 1, 1]
    assert sorted(closed) == ["n0", "n1"]


# ---- the report in HTML


def judged(record, probability, verdict):
    return replace(record, judgement=Judgement(probability, {1.0: 0.25, 4.0: probability}, np.eye(6), verdict))


@pytest.fixture
def reports(monkeypatch):
    """Reports that would have been written, with intervals that are the figures alone."""
    kept = []
    monkeypatch.setattr(html_report, "write_report", lambda report, path: kept.append(report))
    monkeypatch.setattr(trust, "bootstrapped", lambda values: Interval(float(trust.median(np.array(values))), 1.0, 2.5))
    monkeypatch.setattr(trust, "share", lambda hits, total: Interval(hits / total, None, None))
    return kept


def test_the_report_in_html(reports, monkeypatch, tmp_path):
    monkeypatch.setattr(html_report, "MOST_PANELS", 12)
    results = [shown(i, error_m=float(i % 7) + 0.125 * i) for i in range(14)]
    results[3] = shown(3, success=False)
    results[4] = replace(results[4], sigma_hw=None)
    gathered, none = TrustFigures(), TrustFigures(stage="refined")
    for one in results:
        gathered.add(one, tmp_path / "rgb" / "a.png")
    gathered.records[5] = judged(gathered.records[5], 0.75, "ok")
    write_html_report(results, gathered, none, 10.0, "a title", tmp_path, None)
    (report,) = reports
    first = {**{k: v for k, v in vars(report).items() if k not in ("panels", "background")}, "panels": report.panels[:6]}
    assert_kept("html-report", [first, [panel.name for panel in report.panels], report.background.bounds])


def test_the_report_of_refined_poses_with_renders(reports, monkeypatch, tmp_path):
    rendered = []

    class Renderer:
        def __init__(self, scene):
            rendered.append(scene)

        def render(self, pose_44, K_33, width, height):
            rendered.append((pose_44[0, 3], K_33[0, 0], width, height))
            return SimpleNamespace(rgb_HW3=np.full((1, 1, 3), 9, np.uint8))

    monkeypatch.setattr(html_report, "Renderer", Renderer)
    monkeypatch.setattr(html_report, "orthophoto", lambda scene, positions: (scene, len(positions)))
    results = [replace(shown(0), refined=refined_pose()), replace(shown(1), refined=refined_pose(accepted=False))]
    gathered, refined = TrustFigures(), TrustFigures(stage="refined")
    for one in results:
        gathered.add(one, tmp_path / "rgb" / "a.png")
        refined.add(one, tmp_path / "rgb" / "a.png")
    write_html_report(results, gathered, refined, 10.0, "t", tmp_path, "scene")
    (report,) = reports
    assert report.background == ("scene", 2) and rendered == ["scene", (0.0, 20.0, 24, 16), (2.0, 20.0, 24, 16)]
    assert report.note == "Errors are distances of camera centres and angles between axes."
    assert_kept(
        "html-report-refined", [report.figures, [panel.facts for panel in report.panels], report.curves, report.worst]
    )


def test_tables_of_a_calibration():
    held = Reliability(
        7, 5, 0.8765, 0.1234, ((3, 0.125, 0.333), (4, 0.9, 1.0)), {"ok": (4, 1.0), "failed": (3, 0.333)}, 0.2, 0.7
    )
    assert html_report._tables(held) == {
        "Reliability (AUROC 0.876, Brier 0.123)": [
            ("photos", "mean probability", "share right"), ("3", "0.12", "0.33"), ("4", "0.90", "1.00"),
        ],
        "Verdicts": [("verdict", "photos", "share right"), ("ok", "4", "1.00"), ("failed", "3", "0.33")],
    }  # fmt: skip
    assert "AUROC all alike, Brier" in next(iter(html_report._tables(replace(held, auroc=None))))
    assert html_report._tables(None) == {}
    assert html_report._interval(Interval(0.12345, 0.1, 0.2), "%", 100) == "12.3 % (95 %: 10 to 20)"
    assert html_report._interval(Interval(0.12345, None, None), "m") == "0.123 m"


def test_the_ground_that_labels_know():
    one = shown("a")
    coords = np.stack(np.meshgrid([0.0, 10.0, 20.0], [10.0, 0.0])).astype(np.float32)
    image = np.arange(16 * 24 * 3, dtype=np.uint8).reshape(16, 24, 3)
    valid = np.array([[True, True, False], [True, True, True]])
    ground = replace(one, coord_true_3hw=np.concatenate((coords, coords[:1])), valid_hw=valid, image_HW3=image)
    found = html_report._ground([ground])
    assert_kept("ground-of-labels", [found.picture_HW3, found.bounds])
    assert html_report._ground([replace(ground, valid_hw=valid & False)]) is None
    lone = np.zeros_like(valid)
    lone[0, :2] = True
    assert html_report._ground([replace(ground, valid_hw=lone)]).picture_HW3.shape[0] == 1
    lone[0, 0] = False
    assert html_report._ground([replace(ground, valid_hw=lone)]) is None
    heat = html_report._heat(np.array([[0.0, 1.0, 2.0, 9.0, np.nan]]), 2.0)
    assert_kept(
        "heat", [heat, html_report._heat(np.array([[0.0, 1.0]]), 0.0), html_report._bytes(np.array([-1.0, 0.498, 2.0]))]
    )


def test_limits_of_colours():
    low_3, high_3, worst = html_report._limits([shown("a"), shown("b")])
    assert worst == pytest.approx(np.sqrt(3)) and low_3.shape == high_3.shape == (3,)
    nothing = replace(shown("a"), valid_hw=shown("a").valid_hw & False)
    assert html_report._limits([nothing])[2] == 1.0


# ---- figures with intervals


def test_everything_that_is_known_of_a_section(reports, tmp_path):
    gathered = TrustFigures()
    for index, of in enumerate(
        ({}, {"success": False}, {"pitch": -50.0, "distance": 30.0}, {"pitch": -10.0, "distance": 500.0})
    ):
        gathered.add(shown(index, **of), tmp_path / "rgb" / f"{index}.png")
    gathered.records[2] = judged(gathered.records[2], 0.5, "doubtful")
    (tmp_path / "semantics").mkdir()
    np.save(tmp_path / "semantics" / "x.npy", np.full((2, 2), 200, np.uint8))
    gathered.add(shown("x"), tmp_path / "rgb" / "x.png")
    content = gathered.to_json()
    assert content["images"][4]["surface"] == "unknown"
    assert_kept("metrics", content)
    weights = tmp_path / "model.net"
    write_metrics(weights, Subject("val", "f", (), {}), gathered)
    assert (tmp_path / "val_model.net_metrics.json").is_file()


def test_groups_have_their_lower_ends():
    assert (trust.SHARES_M, trust.LEVEL, trust._RESAMPLES, trust._BOUND_SHARE) == ((1, 3, 5, 10, 20), 0.95, 2000, 0.05)
    assert [trust._range(v, trust.DISTANCES_M) for v in (-1, 0, 49.9, 50, 399, 400, 1e9, np.nan, np.inf)] == [
        "0 to 50", "0 to 50", "0 to 50", "50 to 100", "200 to 400", "from 400", "from 400", "unknown", "unknown",
    ]  # fmt: skip
    assert [trust._range(v, trust.PITCHES_DEG) for v in (-90, -75.1, -75, -45, -15.1, -15, 30)] == [
        "-90 to -75", "-90 to -75", "-75 to -45", "-45 to -15", "-45 to -15", "from -15", "from -15",
    ]  # fmt: skip
    assert trust.cdf([]) == {"error": [], "share": []}
    assert trust.bootstrapped([1.0, 2.0]).low is not None and trust.share(1, 4).value == 0.25
    np.testing.assert_array_equal(trust.median(np.array([[3.0, 1.0, 2.0], [1.0, np.inf, np.inf]])), [2.0, np.inf])
    record = ImageRecord.of(result(), None)
    assert replace(record, confidence=None).sample is None and replace(record, covariance_66=None).sample is None
    few = TrustFigures(records=[replace(record, stage="refined"), record])
    assert len(few.samples) == 1 and few.reliability is None


# ---- gathering and writing


def test_names_of_what_is_wanted_of_every_image(monkeypatch, tmp_path):
    import evaluation.gathered as gathered_module

    drawn, saved, made = [], [], []
    monkeypatch.setattr(gathered_module, "draw_prediction", lambda result, draw, path: drawn.append(path.name))
    monkeypatch.setattr(gathered_module, "save_arrays", lambda arrays, path: saved.append(path.name))
    monkeypatch.setattr(gathered_module, "calibration_of", lambda weights, stage: made.append(stage))
    weights = tmp_path / "model.net"
    for section_of, names in (["val", "val"], ["a", "b"]), (["val", "other"], ["val_a", "val_b"]):
        files = [SimpleNamespace(image=tmp_path / "rgb" / f"{name}.png") for name in "ab"]
        dataset = SimpleNamespace(files=files, section_of=section_of)
        options = SimpleNamespace(task="coord", calibrate=False, save_pred=True, plot=True)
        for _ in range(2):  # folders may be there
            found = Gathered.of(weights, "sec", dataset, options)
        for name in "ab":
            found.add(shown(name), keep=name == "b")
        assert drawn == [f"{name}.png" for name in names] and saved == [f"{name}.npz" for name in names]
        assert (
            [r.stem for r in found.kept] == ["val/b"] and len(found.trust.records) == 2 and not found.refined_trust.records
        )
        drawn.clear(), saved.clear()
    assert {p.name for p in tmp_path.iterdir()} == {"coord_pred_model.net_sec", "sec_model.net_coord_plots"}
    assert made == ["coarse", "refined"] * 4
    plain = Gathered.of(weights, "sec", dataset, SimpleNamespace(task="coord", calibrate=True, save_pred=False, plot=False))
    assert (
        plain.pred_folder is None and plain.plot_folder is None and len(made) == 8 and plain.refined_trust.stage == "refined"
    )
    dense = Gathered.of(weights, "sec", dataset, SimpleNamespace(task="depth", calibrate=False, save_pred=False, plot=False))
    assert dense.trust is None and dense.refined_trust is None
    save_arrays({"a": np.arange(3)}, tmp_path / "a.npz")
    assert np.load(tmp_path / "a.npz")["a"].tolist() == [0, 1, 2]


def test_results_are_refined_in_the_stored_photo(monkeypatch):
    asked = []
    outcome = refined_pose().refinement

    def refine(photo, K_33, pose_44, geodata, **of):
        asked.append((photo, K_33.tolist(), geodata, of["height"], of["covariance_66"] is not None))
        return outcome if len(asked) == 1 else replace(outcome, accepted=False)

    monkeypatch.setattr(refining, "refine", refine)
    monkeypatch.setattr(refining, "decode_image", lambda path: np.zeros((2, 3, 3)))
    monkeypatch.setattr(refining, "read_calibration", lambda path, H, W: torch.tensor([[float(H), W]]))
    files = SimpleNamespace(image=None, calibration=None)
    dataset = SimpleNamespace(stems=["val/a", "val/b"], files=[files, files])
    found = list(refining.refined_results([shown("a", 3.0), shown("b", 3.0)], dataset, "map", 360))
    assert [(K, geodata, height, known) for _, K, geodata, height, known in asked] == [([[2.0, 3.0]], "map", 360, True)] * 2
    true_44 = shown("a").pose_true_44
    assert (
        found[0].refined.translation_m == pytest.approx(np.linalg.norm(true_44[:3, 3]))
        and found[1].refined.translation_m == 3.0
    )


def evaluation(monkeypatch, tmp_path, *words, outcome=None, **of):
    made = object.__new__(run._Evaluation)
    made.options = parse_options(["scene", "--task", "coord", "--datasets_dir", str(tmp_path), *words])
    made.device, made.map, made.outcome, made.pictures_whole = CPU, None, outcome or run.Outcome(), False
    made._without_record = {}
    for name, value in of.items():
        setattr(made, name, value)
    return made


def weights_of(tmp_path, name="model.net", **of):
    record = make_record("run", **of)
    return Weights(tmp_path / name, SimpleNamespace(record=record, kind=record.kind, domain=record.domain, name="run"))


def test_settings_decide_and_are_said(monkeypatch, tmp_path, caplog):
    made = evaluation(monkeypatch, tmp_path, "--surface", "s", "--ortho", "o", "--refine_height", "360")
    chosen = []
    monkeypatch.setattr(
        run, "preprocessing_for", lambda path, **of: chosen.append((path.name, of["grayscale"])) or len(chosen)
    )
    net = SimpleNamespace(architecture=Architecture(tiny=True))
    places = []
    made.map = SimpleNamespace(check_place=places.append, contents={"dsm": "f"})
    known, foreign = weights_of(tmp_path), Weights(tmp_path / "b.net", None)
    settings = [made._settings(weights, net) for weights in (known, known, foreign, foreign)]
    assert [s["preprocessing"] for s in settings] == [1, 2, 3, 3] and len(places) == 2
    assert settings[0]["refinement"] == {"by": "ncc", "height": 360, "geodata": {"dsm": "f"}} and "solver" in settings[0]
    assert [(s["scene"], s["precision"]) for s in settings[1:3]] == [
        ("scene", "float32"),
        ("scene", settings[2]["precision"]),
    ]
    assert not caplog.text
    made._settings(weights_of(tmp_path, scene="mars"), net)
    assert "was trained on the scene mars, not on scene" in caplog.text
    made.options = replace(made.options, task="depth")
    assert "solver" not in made._settings(known, net) and "refinement" not in made._settings(known, net)


def test_what_was_evaluated_is_skipped_unless_files_are_wanted(monkeypatch, tmp_path):
    monkeypatch.setattr(run, "was_evaluated", lambda *of: True)
    monkeypatch.setattr(run, "weights_fingerprint", lambda path: "f")
    monkeypatch.setattr(run._Evaluation, "_settings", lambda self, weights, net: {})
    net, section = SimpleNamespace(architecture=Architecture(tiny=True)), run._Section("val", [], ())
    for words, counted in (
        (["--resume"], 0), ([], 1), (["--resume", "--plot"], 1), (["--resume", "--save_pred"], 1),
        (["--resume", "--calibrate", "--section", "val"], 1),
    ):  # fmt: skip
        made = evaluation(monkeypatch, tmp_path, *words)
        assert len(list(made._candidates(weights_of(tmp_path), net, [section]))) == counted, words
        assert made.outcome.skipped == ([] if counted else [(tmp_path / "model.net", "val")])
    whole = evaluation(monkeypatch, tmp_path, "--resume", pictures_whole=True)
    assert len(list(whole._candidates(weights_of(tmp_path), net, [section]))) == 1


def test_networks_that_see_the_same_images_share_a_pass(monkeypatch, tmp_path, caplog):
    made = evaluation(monkeypatch, tmp_path)
    passes = []

    def load(path):
        if path.stem == "bad":
            raise ValueError("is damaged")
        return SimpleNamespace(architecture=SimpleNamespace(fullsize=path.stem == "full"))

    def candidates(weights, net, sections):
        height = 96 if weights.path.stem == "high" else 64
        settings = {"preprocessing": height, "precision": "bf16" if weights.path.stem == "low" else "float32"}
        for section in sections:
            yield run._Candidate(net, weights.path, section, Subject(section.name, "f", (), settings))

    def in_one_pass(chosen):
        passes.append([(c.weights.stem, c.section.name) for c in chosen])
        return ["report"] * len(chosen)

    monkeypatch.setattr(run, "load_network", load)
    made._candidates, made._in_one_pass = candidates, in_one_pass
    sections = [run._Section(name, [], ()) for name in ("x", "y")]
    names = ("a", "bad", "high", "low", "full", "b")
    made.of_weights([(Weights(tmp_path / f"{name}.net", None), sections[: 2 if name == "a" else 1]) for name in names])
    assert passes == [[("a", "x"), ("b", "x")], [("a", "y")], [("high", "x")], [("low", "x")], [("full", "x")]]
    assert [path.stem for path in made.outcome.evaluated] == ["a", "b", "high", "low", "full"]
    assert made.outcome.damaged == {tmp_path / "bad.net": "is damaged"} and "passed over: is damaged" in caplog.text


def test_an_evaluation_from_options_to_groups_of_networks(monkeypatch, tmp_path):
    groups, places = [], []

    class Evaluation:
        def __init__(self, options, device):
            self.outcome = run.Outcome()
            self.map = SimpleNamespace(check_place=places.append)

        def of_weights(self, chosen):
            groups.append([(weights.path.stem, list(sections)) for weights, sections in chosen])
            if damaged:
                self.outcome.damaged.update({weights.path: f"{weights.path.stem} damaged" for weights, _ in chosen})

    damaged, chosen = False, [weights_of(tmp_path, f"{i}.net", scene="scene" if i < 3 else "mars") for i in range(17)]
    monkeypatch.setattr(run, "find_weights", lambda options: chosen)
    monkeypatch.setattr(run, "_Evaluation", Evaluation)
    monkeypatch.setattr(run, "_open_section", lambda options, name: f"open {name}")
    monkeypatch.setattr(run, "check_writable", lambda folder, name: None)
    asked = []
    monkeypatch.setattr(run, "precision_for", lambda *of: asked.append(of))
    options = parse_options(["scene", "--task", "coord", "--section", "b", "a", "b"])
    run.evaluate(options, CPU)
    assert asked == [(None, CPU, None)]
    with pytest.raises(ValueError, match="has fullsize = False, but a flag says True"):
        run.evaluate(replace(options, fullsize=True), CPU)
    assert [len(group) for group in groups] == [8, 8, 1] and groups[2] == [("16", ["open b", "open a"])] and len(places) == 3
    for flag, said in (
        ("overview", "--overview draws one weights file, but 17"),
        ("report", "--report shows one weights file, but 17"),
    ):
        with pytest.raises(ValueError, match=said):
            run.evaluate(replace(options, **{flag: Path("x")}), CPU)
    damaged, chosen[2:] = True, []
    with pytest.raises(ValueError, match="^0 damaged; 1 damaged$"):
        run.evaluate(options, CPU)


def test_what_is_written_of_a_section(monkeypatch, tmp_path, caplog):
    """Positions, metrics, pictures, report and results, each when it is wanted."""
    events = []
    monkeypatch.setattr(run, "write_estimated_positions", lambda weights, section, names, positions: events.append(names))
    monkeypatch.setattr(run, "write_metrics", lambda weights, subject, *trusts: events.append(trusts))
    monkeypatch.setattr(run, "draw_overview", lambda kept, summary, title, path: events.append((title, path.name)))
    monkeypatch.setattr(
        run, "write_html_report", lambda kept, trust, refined, px, title, path, scene: events.append((px, title, scene))
    )
    monkeypatch.setattr(run, "write_results", lambda weights, task, subject, summary, rows, refined: ("block", refined))
    dataset = SimpleNamespace(
        files=[SimpleNamespace(image=Path("a.png")), SimpleNamespace(image=Path("b.png"))], section_of=["s", "t"]
    )
    figures = SimpleNamespace(positions_N3="xyz", summary=lambda: "summary", rows=[], refined="refined")
    gathered = SimpleNamespace(figures=figures, trust="coarse", refined_trust="fine", kept=[])
    subject = Subject("val", "f", (), {})
    one, two = (run._Section("val", [Path("s"), Path("t")][:n], ()) for n in (1, 2))
    candidate = run._Candidate(None, tmp_path / "ckpt.net", one, subject)
    made = evaluation(monkeypatch, tmp_path)
    assert made._write(candidate, gathered, dataset) == ("block", None) and events == [["a.png", "b.png"], ("coarse",)]
    events.clear()
    made = evaluation(monkeypatch, tmp_path, "--surface", "s", "--ortho", "o", "--section", "val", "--overview", "o.png",
                      "--report", "r.html", "--threshold", "7", map=SimpleNamespace(scene="geodata"))  # fmt: skip
    with caplog.at_level(logging.INFO):
        assert made._write(replace(candidate, section=two), gathered, dataset) == ("block", "refined")
    assert events == [
        ["s/a.png", "t/b.png"], ("coarse", "fine"), ("scene, val, ckpt", "o.png"), (7.0, "scene, val, ckpt", "geodata"),
    ]  # fmt: skip
    assert "report: r.html" in caplog.text
    events.clear()
    dense = replace_namespace(gathered, trust=None, figures=replace_namespace(figures, positions_N3=None))
    assert evaluation(monkeypatch, tmp_path)._write(candidate, dense, dataset) == ("block", None) and events == []
    learned = []
    made = evaluation(monkeypatch, tmp_path, "--calibrate", "--section", "val")
    made._calibrate = lambda weights, subject, trust: learned.append(trust)
    made._write(candidate, gathered, dataset)
    assert learned == ["coarse"]


def replace_namespace(namespace, **of):
    return SimpleNamespace(**{**vars(namespace), **of})


def test_flags_that_contradict_the_weights(tmp_path):
    found = Architecture(tiny=True)
    check_architecture(found, parse_options(["scene", "--task", "coord", "--tiny"]), tmp_path)
    for words, message in ((["--task", "depth"], "is a network for the task coord, not for --task depth"),
                           (["--task", "coord", "--fullsize"], "has fullsize = False, but a flag says True"),
                           (["--task", "coord", "--grayscale"], "has in_channels = 3, but a flag says 1")):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            check_architecture(found, parse_options(["scene", *words]), tmp_path)


# ---- weights, sections, selection


def test_which_files_of_a_folder_are_weights(tmp_path):
    names = ["model.net", "model.safetensors", "ckpt_iter_0000012.net", "ckpt_iter_0000003.net", "ckpt_iter_x.net",
             "a_crossloc.net", "crossloc.txt", "other.net"]  # fmt: skip
    for name in names:
        (tmp_path / name).touch()
    assert [path.name for path in weights_in(tmp_path)] == [
        "ckpt_iter_0000003.net", "ckpt_iter_0000012.net", "model.net", "a_crossloc.net",
    ]  # fmt: skip
    (tmp_path / "model.net").unlink()
    assert [path.name for path in weights_in(tmp_path)][2:] == ["model.safetensors", "a_crossloc.net"]
    assert [_has_weights_name(name) for name in (*names, "a_ckpt_1.safetensors", "model.txt", "xmodel.net")] == [
        True, True, True, True, True, True, False, False, True, False, False,
    ]  # fmt: skip


def test_groups_and_roles_of_sections(tmp_path):
    assert_kept("sections", [SECTION_GROUPS, SECTION_ROLES], exact=True)
    runs = {
        kind: SimpleNamespace(kind=kind, domain=domain) for kind, domain in (("sim_only", None), ("pairs", "out_of_place"))
    }
    assert section_for("validation", runs["sim_only"], tmp_path) == "val_sim" and section_for("x", None, tmp_path) == "x"
    assert section_for("test", runs["pairs"], tmp_path) == "test_oop_drone_real"
    with pytest.raises(ValueError, match="was trained on sim_only data, which has no test section"):
        section_for("test", runs["sim_only"], tmp_path)
    with pytest.raises(ValueError, match="so it has no validation section"):
        section_for("validation", None, tmp_path)
    (tmp_path / "town-fullsize" / "val_sim").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match="town; there is town-fullsize: name that as the scene"):
        section_dirs(tmp_path / "town", "val_sim")
    with pytest.raises(
        FileNotFoundError, match=r"'test_sim_all': no val_drone_sim, test_drone_sim in .*present: \['val_sim'\]"
    ):
        section_dirs(tmp_path / "town-fullsize", "test_sim_all")


def test_what_a_task_is():
    """Units, places and lines of all figures, and what ranks."""
    tables = {
        task: [of.figures, of.tie_break, of.descending, of.report.__name__, of.draw.__name__,
               None if of.measure is None else [f.__name__ for f in vars(of.measure).values()]]
        for task, of in EVALUATIONS.items()
    }  # fmt: skip
    assert_kept("tasks-of-evaluation", tables, exact=True)


def test_a_selection_shows_twenty(tmp_path):
    assert _SHOWN == 20
    candidates = [Candidate(tmp_path / f"{i}.net", (float(i), 0.5, 1.0, 2.0, 3.0), 0.0, "val", None) for i in range(2)]
    assert table(candidates, "coord").splitlines()[1:] == [
        "     0.000     0.500     1.000     2.000     3.000  0.net",
        "     1.000     0.500     1.000     2.000     3.000  1.net",
    ]  # fmt: skip
    folder = tmp_path / "run"
    folder.mkdir()
    for iteration in range(1, 23):
        write_coord(folder, f"ckpt_iter_{iteration:07d}.net", float(iteration))
    said = []
    select_and_export([folder], "coord", None, None, said.append)
    (text,) = said
    lines = text.splitlines()
    assert lines[0] == str(folder) and len(lines) == 1 + 1 + 20 + 1 and lines[-1] == "selected: ckpt_iter_0000001.net"


def test_sections_of_a_result_by_content():
    def subject(*names):
        return Subject("group", "f", tuple(SectionRecord(name, 1, f"of {name}") for name in names), {})

    assert subject("a").section_fingerprint == "of a" and len(subject("a", "b").section_fingerprint) > 5
    assert subject("a", "b").section_fingerprint != subject("a", "c").section_fingerprint
    assert isinstance(shown("a"), CoordResult)


@pytest.mark.parametrize("count, task", [(1, "coord"), (2, "coord"), (1, "depth")])
def test_one_pass_over_a_section(monkeypatch, tmp_path, count, task):
    """Predictions of all networks, solved or decoded, refined where there is a map, gathered by network."""
    events = []
    stream = [SimpleNamespace(network=number) for number in range(count)]

    def predicted(nets, dataset, preprocessing, **of):
        events.append((nets, dataset, of))
        return stream

    monkeypatch.setattr(run, "SectionDataset", lambda folders, task, height: (folders, task, height))
    monkeypatch.setattr(run, "predictions_of_many", predicted)
    monkeypatch.setattr(run, "coord_results", lambda stream, solver: events.append("solved") or stream)
    monkeypatch.setattr(run, "dense_results", lambda stream, task: events.append("decoded") or stream)
    monkeypatch.setattr(
        run,
        "refined_results",
        lambda results, _dataset, _map, height, by: events.append((height, by)) or results,
    )

    class Parts:
        @staticmethod
        def of(weights, section, dataset, options):
            return SimpleNamespace(
                add=lambda result, keep: events.append((weights.stem, result.network, keep)), of=weights.stem
            )

    monkeypatch.setattr(run, "Gathered", Parts)
    words = ["--num_workers", "3", "--task", task]
    words += ["--surface", "s", "--ortho", "o", "--refine_height", "99"] if count == 2 else []
    made = evaluation(monkeypatch, tmp_path, *words, map=SimpleNamespace(), matcher="by", pictures_whole=True)
    made._write = lambda candidate, gathered, dataset: gathered.of
    settings = {"preprocessing": SimpleNamespace(image_height=64), "precision": "bf16"}
    candidates = [
        run._Candidate(
            f"net{i}", tmp_path / f"w{i}.net", run._Section("val", ["folder"], ()), Subject("val", "f", (), settings)
        )
        for i in range(count)
    ]
    assert made._in_one_pass(candidates) == [f"w{i}" for i in range(count)]
    title = "w0.net val" if count == 1 else "2 networks val"
    asked = {"device": CPU, "precision": "bf16", "num_workers": 3, "title": title}
    assert events[0] == ([f"net{i}" for i in range(count)], (["folder"], task, 64), asked)
    assert events[1:] == ["solved" if task == "coord" else "decoded", *([(99, "by")] if count == 2 else []),
                          *[(f"w{i}", i, True) for i in range(count)]]  # fmt: skip


def test_a_section_is_looked_at_before_it_is_read(monkeypatch, tmp_path):
    checked = []

    class Samples(list):
        def __init__(self, folders, task, height):
            super().__init__([0] * len(folders[0].name))
            checked.append((folders[0].name, task, height))

    monkeypatch.setattr(run, "SectionDataset", Samples)
    monkeypatch.setattr(run, "check_geometry", lambda samples: checked.append(len(samples)))
    monkeypatch.setattr(run, "section_record", lambda folder, label, count: (folder.name, label, count))
    for name in ("val_drone_real", "test_drone_real"):
        (tmp_path / "scene" / name).mkdir(parents=True)
    words = ["scene", "--task", "depth", "--datasets_dir", str(tmp_path)]
    found = run._open_section(parse_options(words), "test_real_all")
    assert found.contents == (("val_drone_real", "depth", 14), ("test_drone_real", "depth", 15))
    assert checked == [("val_drone_real", "depth", 480), 14, ("test_drone_real", "depth", 480), 15]
    run._open_section(parse_options([*words, "--image_height", "96"]), "val_drone_real")
    assert checked[4] == ("val_drone_real", "depth", 96)


@pytest.mark.parametrize("summary", [{}, {"translation_m": []}, {"translation_m": {"median": "x"}}, None])
def test_results_without_a_figure_are_named(tmp_path, summary):
    write_coord(tmp_path, "ckpt_iter_0000004.net", 1.0)
    (twin,) = tmp_path.glob("results_*.json")
    content = json.loads(twin.read_text())
    content["evaluations"][0]["summary"] = summary
    twin.write_text(json.dumps(content))
    with pytest.raises(
        ValueError, match="an evaluation on val_sim has no median position error; delete it and evaluate again"
    ):
        select_and_export([tmp_path], "coord", None, None, print)


@pytest.mark.parametrize("field", ["{scene:d}", "{sections[9]}", "{scene.foo}", "{options:.2f}", "{0}", "{scene"])
def test_fields_that_cannot_be_filled_are_named(run_folder, field):
    with pytest.raises(
        ValueError, match=r"cannot fill .* from the record of .*model\.net: .*; give --export a path without"
    ):
        export_path(f"{field}.net", run_folder / "model.net")


def test_a_path_is_filled_from_the_record(run_folder):
    weights = run_folder / "model.net"
    template = "{scene}-{task}-{domain}-{real_domain}-{size}{partial}-{sim_chunk:.2f}-{seed}.net"
    assert str(export_path(template, weights)) == "town-coord-in_place-in_place-tiny-partial-finetuning-0.50-1.00-2021.net"
    with pytest.raises(ValueError, match=r"the record of .* does not know its colour; give --export"):
        export_path("{colour}.net", weights)
    assert export_path("plain.net", run_folder / "none.net") == Path("plain.net")


def test_tables_of_errors_that_are_damaged(tmp_path):
    name = "val_sim_model.net_task_coord.csv"
    for text, said in (("rotation_error_deg,translation_error_m\n1\n", "TypeError"), ("rotation_error_deg\n1\n", "KeyError"),
                       ("rotation_error_deg,translation_error_m\n1,x\n", "ValueError")):  # fmt: skip
        (tmp_path / name).write_text(text)
        with pytest.raises(ValueError, match=f"is damaged: {said}"):
            read_errors([tmp_path / name])
    (tmp_path / name).write_text("rotation_error_deg,translation_error_m\n1,nan\n2,inf\n")
    (found,) = read_errors([tmp_path / name])
    assert found.errors["translation_error_m"].tolist() == [np.inf, np.inf] and found.images == 2
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "a_b_ckpt_iter_0000001.net_task_depth.csv").touch()
    (tmp_path / "deep" / "a_b_ckpt_iter_0000001.net_task_semantics.csv").touch()
    (tmp_path / "deep" / "a_task_depth.csv").touch()
    assert [path.parent.name for path in find_tables(tmp_path, ["a_b"])] == ["deep"]
    with pytest.raises(FileNotFoundError, match=r"no evaluation on x or y in .*; there are: a_b, val_sim$"):
        find_tables(tmp_path, ["x", "y"])
    with pytest.raises(FileNotFoundError, match="no such file or folder"):
        find_tables(tmp_path / "none")
    with pytest.raises(FileNotFoundError, match="there are: none$"):
        (tmp_path / "empty").mkdir()
        find_tables(tmp_path / "empty", ["x"])
    assert distinct_names([]) == [] and distinct_names([tmp_path / "a" / "x", tmp_path / "a" / "x"]) == ["x", "x"]
