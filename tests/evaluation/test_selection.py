"""The best checkpoint is chosen by JSON or by text alone, flagged and exported whole."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from evaluation.metrics import Spread, coord_summary
from evaluation.reports import write_results
from evaluation.selection import export, export_path, rank, select

ROWS = [{"stem": "a"}]


def write_coord(folder, name, median_m, section="val_sim", coord_m=1.0):
    (folder / name).write_bytes(name.encode())
    write_results(folder / name, "coord", section, coord_summary([median_m], [1.0], np.array([coord_m])), {}, ROWS)


@pytest.fixture
def run_folder(tmp_path):
    for name, median_m in (("ckpt_iter_0000010.net", 2.004), ("ckpt_iter_0000020.net", 2.001), ("model.net", 1.5)):
        write_coord(tmp_path, name, median_m)
    record = {"scene": "town", "task": "coord", "sim_chunk": 1.0, "real_chunk": 0.5}
    (tmp_path / "training.json").write_text(json.dumps(record))
    return tmp_path


def drop_json(folder):
    for path in folder.glob("results_*.json"):
        path.unlink()


def test_numbered_checkpoints_are_chosen_by_unrounded_figures(run_folder):
    candidates, selected = select(run_folder, "coord")
    assert [c.weights.name for c in candidates] == ["model.net", "ckpt_iter_0000020.net", "ckpt_iter_0000010.net"]
    assert selected.weights.name == "ckpt_iter_0000020.net"
    assert [p.name for p in run_folder.glob("FLAG_*")] == ["FLAG_SELECTED_ITER_0000020.nodata"]
    assert "ckpt_iter_0000010.net" in (run_folder / "results_overall.txt").read_text()


def test_the_published_text_alone_is_enough(run_folder):
    drop_json(run_folder)
    _, selected = select(run_folder, "coord")
    assert selected.weights.name == "ckpt_iter_0000010.net"  # 2.00 both in the text: the earlier one
    assert selected.figure == 2.0


@pytest.mark.parametrize("text_only", [False, True])
def test_the_last_block_counts_unless_a_section_is_named(run_folder, text_only):
    write_coord(run_folder, "ckpt_iter_0000010.net", 1.0, section="test_drone_real")
    if text_only:
        drop_json(run_folder)
    assert select(run_folder, "coord")[1].figure == 1.0
    assert select(run_folder, "coord", "val_sim")[1].figure == pytest.approx(2.001, abs=0.002)
    with pytest.raises(FileNotFoundError, match="val_drone_real"):
        rank(run_folder, "coord", "val_drone_real")


def test_a_new_selection_replaces_the_old_flag(run_folder):
    select(run_folder, "coord")
    write_coord(run_folder, "ckpt_iter_0000030.net", 1.0)
    select(run_folder, "coord")
    assert [p.name for p in run_folder.glob("FLAG_*")] == ["FLAG_SELECTED_ITER_0000030.nodata"]


@pytest.mark.parametrize("text_only", [False, True])
@pytest.mark.parametrize(
    ("task", "summaries", "best"),
    [
        ("depth", [(5.0, 9.0), (6.0, 2.0)], 1),
        ("normal", [(5.0,), (6.0,)], 0),
        ("semantics", [(50.0,), (60.0,)], 1),
    ],
)
def test_every_task_has_its_figure_and_direction(tmp_path, task, summaries, best, text_only):
    for index, values in enumerate(summaries):
        spreads = [Spread(0.0, 0.0, value) for value in values]
        summary = {
            "depth": lambda s: {"absolute_relative_percent": s[0], "rms_m": s[-1]},
            "normal": lambda s: {"angle_deg": s[0]},
            "semantics": lambda s: {n: s[0] for n in ("mean_iou", "pixel_accuracy", "frequency_weighted_iou")},
        }[task](spreads)
        write_results(tmp_path / f"ckpt_iter_{index:07d}.net", task, "val_sim", summary, {}, ROWS)
    if text_only:
        drop_json(tmp_path)
    assert select(tmp_path, task)[1].iteration == best


def test_a_run_that_never_found_a_pose_loses(run_folder):
    write_coord(run_folder, "ckpt_iter_0000001.net", float("inf"))
    assert [c.iteration for c in rank(run_folder, "coord")][-1] == 1
    drop_json(run_folder)
    assert [c.iteration for c in rank(run_folder, "coord")][-1] == 1


@pytest.mark.parametrize("text_only", [False, True])
def test_equals_are_told_apart_by_their_coordinates_then_by_age(tmp_path, text_only):
    for iteration, coord_m in ((10, 60.0), (20, 40.0), (30, 40.0)):
        write_coord(tmp_path, f"ckpt_iter_{iteration:07d}.net", float("inf"), coord_m=coord_m)
    if text_only:
        drop_json(tmp_path)
    assert [c.iteration for c in rank(tmp_path, "coord")] == [20, 30, 10]


def test_export_takes_the_training_record_along(run_folder, tmp_path):
    template = str(tmp_path / "w/{scene}{partial}/{task}/model-sc-{sim_chunk:.2f}.net")
    target = export_path(template, run_folder / "model.net")
    assert target == tmp_path / "w/town-partial-finetuning-0.50/coord/model-sc-1.00.net"
    export(run_folder / "ckpt_iter_0000010.net", target)
    assert target.read_bytes() == b"ckpt_iter_0000010.net"
    assert json.loads(target.with_suffix(".json").read_text())["scene"] == "town"
    assert sorted(p.name for p in target.parent.iterdir()) == ["model-sc-1.00.json", "model-sc-1.00.net"]
    (run_folder / "training.json").unlink()
    export(run_folder / "model.net", target)
    assert [p.name for p in target.parent.iterdir()] == ["model-sc-1.00.net"]


def test_bad_selections_are_refused(run_folder, tmp_path):
    with pytest.raises(ValueError, match="'weather'"):
        rank(run_folder, "weather")
    with pytest.raises(FileNotFoundError, match="test_single_task.py"):
        rank(run_folder, "depth")
    with pytest.raises(ValueError, match="real_domain"):
        export_path("{real_domain}.net", run_folder / "model.net")
    with pytest.raises(ValueError, match=r"best\.pt"):
        export(run_folder / "model.net", tmp_path / "best.pt")
    with pytest.raises(FileNotFoundError, match="gone.net"):
        export(run_folder / "gone.net", tmp_path / "best.net")
    drop_json(run_folder)
    (run_folder / "results_model_task_coord.txt").write_text("nothing\n")
    with pytest.raises(ValueError, match="results_model_task_coord.txt"):
        rank(run_folder, "coord")


def test_the_command(run_folder, repository):
    command = [sys.executable, str(repository / "script_clean_validation/select_ckpt.py"), "--task"]
    done = subprocess.run([*command, "coord", "--export", "out/best.net"], cwd=run_folder, capture_output=True, text=True)
    assert done.returncode == 0 and "selected: ckpt_iter_0000020.net" in done.stdout
    assert (run_folder / "out/best.net").read_bytes() == b"ckpt_iter_0000020.net"
    failed = subprocess.run([*command, "weather"], cwd=run_folder, capture_output=True, text=True)
    assert failed.returncode == 2 and failed.stderr.count("\n") == 1 and "'weather'" in failed.stderr
    search = [*command, "coord", "--search_dir", str(run_folder.parent), "--keywords", run_folder.name, "-tiny"]
    failed = subprocess.run(search, capture_output=True, text=True)
    assert failed.returncode == 2 and "-tiny" in failed.stderr
