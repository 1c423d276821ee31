"""Curves of trainings: read from our CSV and from published logs, smoothed, drawn; errors of evaluations beside them."""

import csv
import subprocess
import sys

import numpy as np
import pytest

from evaluation.error_curves import cumulative, distinct_names, read_errors
from runs.record import write_record
from tests.evaluation.conftest import make_record
from tests.training.small_runs import SMALL, options
from training.curves import curves_table, draw_curves, find_logs, read_curve, read_curves, smoothed
from training.loop import train
from visualize import visualize

PUBLISHED = "urbanscape-{task}-sclean_training-unc-MLE-e150-lr0.0002-sim_only-sc1.00"


def step(images, epoch, loss, valid, error=None, task="coord", seconds=0.05):
    wording = {
        "coord": "Regression error: coord:  {error:.2f}, reprojection:  7.50",
        "depth": "Regression error: depth:  {error:.2f}",
        "normal": "Regression error: normal in radian:  9.99, normal in degree: {error:.2f}",
    }
    lines = [
        f"Iteration: {images:7d}, Epoch: {epoch:3d}, Total loss: {loss:.2f}, Valid: {valid:.1f}%, Avg Time: {seconds:.3f}s"
    ]
    if error is not None:
        lines.insert(0, wording[task].format(error=error))
    return "".join(f"2021-11-25 10:00:00, INFO: {line}\n" for line in lines)


def published_log(folder, text, name="output.log"):
    folder.mkdir(parents=True)
    (folder / name).write_text("2021-11-25 09:59:59, INFO: ***** A new training has been started *****\n" + text)
    return folder / name


@pytest.mark.parametrize("task", ["coord", "depth", "normal"])
def test_a_published_log(tmp_path, task):
    text = "".join(step(12 * (i + 1), i // 4, -1.5 - i, 10.0 * i, error=50 - i, task=task) for i in range(8))
    curve = read_curve(published_log(tmp_path / PUBLISHED.format(task=task), "=== Epoch: 0 ===\n" + text))
    assert (curve.task, curve.name) == (task, PUBLISHED.format(task=task))
    assert curve.images_N.tolist() == list(range(12, 97, 12))
    assert curve.epochs_N.tolist() == [0.25, 0.5, 0.75, 1, 1.25, 1.5, 1.75, 2]
    assert curve.loss_N.tolist() == [-1.5 - i for i in range(8)]  # the sign counts
    assert curve.valid_percent_N.tolist() == [10.0 * i for i in range(8)]
    assert curve.error_N.tolist() == [50.0 - i for i in range(8)]
    assert curve.error_unit == ("deg" if task == "normal" else "m")


def test_logs_without_residuals_take_the_task_from_the_folder(tmp_path):
    curve = read_curve(published_log(tmp_path / PUBLISHED.format(task="semantics"), step(12, 0, 1.0, 50.0)))
    assert curve.task == "semantics" and curve.error_N is None
    assert read_curve(published_log(tmp_path / "elsewhere", step(12, 0, 1.0, 50.0))).task is None
    folder = tmp_path / "renamed"
    log = published_log(folder, step(12, 0, 1.0, 50.0))
    write_record(folder, make_record("renamed", task="depth"))
    assert read_curve(log).task == "depth"


def test_an_epoch_that_is_begun_again_replaces_what_was_logged_of_it(tmp_path):
    before = step(10, 0, 5.0, 1.0, 1.0) + step(20, 0, 4.0, 2.0, 2.0) + step(30, 1, 3.0, 3.0, 3.0)
    again = "INFO: Automatic resume training from here\n" + step(30, 1, 9.0, 9.0, 9.0) + step(40, 1, 8.0, 8.0, 8.0)
    curve = read_curve(published_log(tmp_path / "run", before + step(35, 1, 2.0, 2.0, 2.0) + again))
    assert curve.images_N.tolist() == [10, 20, 30, 40] and curve.loss_N.tolist() == [5, 4, 9, 8]
    assert curve.epochs_N.tolist() == [0.5, 1, 1.5, 2]


def test_values_that_are_not_finite_leave_a_gap(tmp_path):
    text = step(10, 0, float("nan"), 1.0, 1.0) + step(20, 0, float("inf"), 2.0, 2.0) + step(30, 0, 3.0, 3.0, 3.0)
    curve = read_curve(published_log(tmp_path / "run", text))
    assert np.isnan(curve.loss_N[0]) and np.isinf(curve.loss_N[1])
    x_M, y_M = smoothed(curve.images_N, curve.loss_N, 1)
    assert (x_M.tolist(), y_M.tolist()) == ([30.0], [3.0])


def test_moving_averages():
    x_N, y_N = np.arange(100.0), np.arange(100.0) ** 2
    x_M, y_M = smoothed(x_N, y_N, 5)
    assert len(x_M) == 96 and x_M[0] == 2.0 and y_M[0] == pytest.approx((0 + 1 + 4 + 9 + 16) / 5)
    assert y_M[-1] == pytest.approx(np.mean(y_N[-5:]))
    assert len(smoothed(x_N, y_N, 125)[0]) == 91  # at most a tenth of the run
    assert smoothed(x_N[:3], y_N[:3], 125)[1].tolist() == [0.0, 1.0, 4.0]


def test_our_own_runs(tmp_path, plane_section):
    plane_section(4)
    run = train(options(tmp_path, *SMALL, "--epochs", 3, "--session", "one"))
    (log,) = find_logs(tmp_path / "out")
    assert log == run.output / "training_log.csv"
    curve = read_curve(log)
    rows = list(csv.DictReader(log.open()))
    assert curve.task == "coord" and curve.error_N.tolist() == [float(row["coord"]) for row in rows]
    assert curve.images_N.tolist() == [2, 4, 6, 8, 10, 12] and curve.epochs_N[-1] == 3
    text = read_curve(run.output / "output.log")  # rounded there
    np.testing.assert_allclose(text.loss_N, curve.loss_N, atol=0.006)
    np.testing.assert_allclose(text.error_N, curve.error_N, atol=0.006)
    with log.open("a") as stream:
        stream.write("14,3,1.5")  # the line that is being written
    assert read_curve(log).images_N.tolist() == curve.images_N.tolist()


def test_runs_are_chosen_by_their_folders_names(tmp_path):
    for name in ("demo-coord-a", "demo-depth-a", "demo-coord-b-tiny"):
        published_log(tmp_path / "coord-tiny" / name, step(12, 0, 1.0, 50.0))
    assert [p.parent.name for p in find_logs(tmp_path, ["-coord-", "!tiny"])] == ["demo-coord-a"]
    assert len(find_logs(tmp_path)) == 3
    with pytest.raises(FileNotFoundError, match=r"fits mars; there are: demo-coord-a, demo-coord-b-tiny, demo-depth-a"):
        find_logs(tmp_path, ["mars"])
    with pytest.raises(FileNotFoundError, match="no such file or folder"):
        find_logs(tmp_path / "none")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("hello\n", r"holds no step of a training; expected training_log\.csv, or lines 'Iteration"),
        ("images_seen,epoch,loss,valid_percent,seconds_per_image\n2,x,1,2,3\n", "is damaged: invalid literal"),
        ("images_seen,loss,seconds_per_image\n2,1,3\n", "is damaged: 'epoch'"),
    ],
)
def test_files_that_are_no_logs(tmp_path, content, message):
    (tmp_path / "some.file").write_text(content)
    with pytest.raises(ValueError, match=rf"some\.file {message}"):
        read_curve(tmp_path / "some.file")


def test_names_tell_runs_apart(tmp_path):
    paths = [tmp_path / "a" / "run", tmp_path / "b" / "run", tmp_path / "b" / "other"]
    assert distinct_names(paths) == ["a/run", "b/run", "b/other"]
    assert distinct_names(paths[1:]) == ["run", "other"]
    logs = [published_log(path, step(12, 0, 1.0, 50.0)) for path in paths[:2]]
    assert [curve.name for curve in read_curves([*logs, logs[0]])] == ["a/run", "b/run"]


def test_pictures_and_table(tmp_path):
    texts = {
        task: "".join(
            step(10 * i, i // 50, 9 - i / 100, i / 2, None if task == "semantics" else 1 + i, task) for i in range(1, 200)
        )
        for task in ("coord", "semantics")
    }
    curves = read_curves([published_log(tmp_path / PUBLISHED.format(task=task), text) for task, text in texts.items()])
    written = draw_curves(curves, tmp_path, ending="svg")
    assert {p.name for p in written} == {
        f"training_info_{y}_by_{x}.svg" for y in ("loss", "valid", "task_error") for x in ("iter", "epoch")
    }
    text = (tmp_path / "training_info_task_error_by_iter.svg").read_text()
    assert "</svg>" in text and text.count('<g id="line2d_') > 0
    coord, semantics = curves_table(curves)
    assert coord["images"] == 1990 and coord["epochs"] == pytest.approx(4.0) and coord["unit"] == "m"
    assert coord["error"] == pytest.approx(np.mean([1 + i for i in range(181, 200)])) and semantics["error"] is None
    assert not draw_curves([], tmp_path, ending="png")
    assert len(draw_curves([curves[1]], tmp_path, ending="png")) == 4  # no task error


def evaluation(folder, rows, name="test_drone_real_model.net_task_coord.csv"):
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["section,stem,translation_error_m,rotation_error_deg", *(f"s,{i},{t},{r}" for i, (t, r) in enumerate(rows))]
    (folder / name).write_text("\n".join(lines) + "\n")
    return folder / name


def test_cumulative_errors():
    errors_M, percent_M = cumulative(np.array([3.0, 1.0, np.inf, 2.0]))
    assert errors_M.tolist() == [1.0, 2.0, 3.0] and percent_M.tolist() == [25.0, 50.0, 75.0]


def test_errors_of_evaluations(tmp_path):
    first = evaluation(tmp_path / "a", [(1.0, 0.5), ("inf", "inf"), (3.0, 1.5)])
    second = evaluation(tmp_path / "b", [(5.0, 2.0)])
    one, two = read_errors([first, second])
    assert (one.name, two.name) == ("a/test_drone_real_model.net", "b/test_drone_real_model.net")
    assert one.errors["translation_error_m"].tolist() == [1.0, np.inf, 3.0] and one.images == 3
    for path, message in (
        (evaluation(tmp_path / "c", []), "holds no image"),
        (evaluation(tmp_path / "c", [("x", 1)], "val_sim_ckpt_iter_0000002.net_task_coord.csv"), "is damaged: ValueError"),
        (evaluation(tmp_path / "c", [(1, 1)], "val_sim_model.net_task_depth.csv"), "is damaged: KeyError 'rms_m'"),
        (evaluation(tmp_path / "c", [(1, 1)], "val_sim_model.net_task_semantics.csv"), "semantics has no errors of images"),
        (evaluation(tmp_path / "c", [(1, 1)], "table.csv"), "is no table of an evaluation"),
    ):
        with pytest.raises(ValueError, match=message):
            read_errors([path])


def test_the_command_draws_both(tmp_path, capsys):
    log = published_log(tmp_path / "runs" / "demo-coord-x", "".join(step(i, 0, 1.0, 50.0, 2.0) for i in range(1, 9)))
    evaluation(tmp_path / "w", [(1.0, 0.5), (2.0, 0.7)])
    evaluation(tmp_path / "w", [(9.0, 0.5)], "val_drone_real_model.net_task_coord.csv")
    table = evaluation(tmp_path / "v", [(4.0, 0.5)])
    pictures = tmp_path / "new" / "pictures"
    visualize([str(tmp_path / "runs"), "--output_dir", str(pictures), "--keywords", "coord", "-x"])
    visualize(
        [str(tmp_path / "w"), str(table), "--section", "test_drone_real", "--output_dir", str(pictures), "--format", "svg"]
    )
    assert {p.name for p in pictures.iterdir()} == {
        *(f"training_info_{y}_by_{x}.png" for y in ("loss", "valid", "task_error") for x in ("iter", "epoch")),
        "results_info.svg",
    }
    printed = capsys.readouterr().out
    assert "demo-coord-x" in printed and "1.500" in printed and "4.000" in printed and "9.000" not in printed
    for words, message in (
        ([str(log), "--smooth", "0"], "--smooth must be at least 1, got 0"),
        (
            [str(tmp_path / "w"), "--section", "moon"],
            "no evaluation on moon in .*; there are: test_drone_real, val_drone_real",
        ),
        ([str(tmp_path / "w")], r"no training_log\.csv or output\.log in"),
    ):
        with pytest.raises((ValueError, OSError), match=message):
            visualize(words)


def test_the_command_refuses_in_one_line(tmp_path, repository):
    words = [sys.executable, str(repository / "visualize.py"), str(tmp_path / "none")]
    result = subprocess.run(words, capture_output=True, text=True)
    assert result.returncode == 2 and result.stderr == f"error: no such file or folder: {tmp_path / 'none'}\n"
