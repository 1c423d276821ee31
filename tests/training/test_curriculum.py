"""The table of a curriculum's stages, from commands, journal and files that are made up."""

import csv
import json

import pytest

from evaluation.reports import Subject, weights_fingerprint, write_results
from runs.record import SectionRecord, write_record, write_sidecar
from tests.evaluation.conftest import make_record, subject, write_coord
from tests.kept import assert_kept
from tests.scripts.test_dry_run import run_script
from training.curriculum import COMMANDS_NAME, JOURNAL_NAME, _commands, _training_options, stages, text_table, write_table
from training.run_folder import DONE_FLAG, folder_of

SCRIPT = "script_clean_training/run_crossloc.sh"


@pytest.fixture
def curriculum(repository, tmp_path):
    """Commands of a scene with three encoders: coord is ready, depth was interrupted, normal failed, CrossLoc was tested."""
    environment = {
        "OUTPUT_DIR": f"{tmp_path}/out",
        "WEIGHTS_DIR": f"{tmp_path}/w",
        "TASKS": "coord depth normal",
        "MIN_CKPT_ITER": "4",
    }
    result = run_script(repository, SCRIPT, ["scene", "in_place", "TINY"], environment)
    assert result.returncode == 0, result.stderr
    folder = tmp_path / "out" / "crossloc"
    folder.mkdir(parents=True)
    (folder / COMMANDS_NAME).write_text(result.stdout)
    runs = {}
    for name, (words, *_) in _commands(folder / COMMANDS_NAME).items():
        if words[1].endswith(("train_single_task.py", "finetune_decoder_single_task.py")):
            runs[name] = folder_of(_training_options(words)).output
    for name in ("pretrain coord", "finetune coord", "decoder crossloc"):
        kind = (
            {}
            if "pretrain" in name
            else {"stage": name.split()[0], "kind": "pairs", "domain": "in_place", "real_chunk": 1.0}
        )
        runs[name].mkdir()
        (runs[name] / DONE_FLAG).touch()
        write_record(runs[name], make_record(runs[name].name, **kind))
        (runs[name] / "training_log.csv").write_text("images_seen,epoch\n6,0\n12,1\n")
        section = "val_sim" if "pretrain" in name else "val_drone_real"
        for iteration, median_m in ((4, 0.5), (8, 2.0), (12, 1.5)):
            write_coord(runs[name], f"ckpt_iter_{iteration:07d}.net", median_m, section)
    runs["pretrain depth"].mkdir()
    (runs["pretrain depth"] / "training_log.csv").write_text("images_seen,epoch\n6,0\n1")
    write_record(runs["pretrain depth"], make_record(runs["pretrain depth"].name, task="depth"))
    write_journal(folder, "pretrain coord,1,100,130", "pretrain coord,2,3600,0", "validate pretrain coord,3,61,0",
                  "finetune coord,4,50,0", "validate finetune coord,4,5,0", "pretrain depth,5,40,130",
                  "pretrain normal,6,2,2", "decoder crossloc,7,70,0", "validate decoder,8,9,0",
                  "test decoder,9,11,0", "cut sho")  # fmt: skip
    return tmp_path, folder, runs


def write_journal(folder, *lines):
    (folder / JOURNAL_NAME).write_text("\n".join(lines))


def decoder_result(tmp_path, name, median_m):
    """Exported weights of a decoder with their record and a result on the test section."""
    exported = tmp_path / "w" / "decoders" / name
    exported.mkdir(parents=True)
    write_coord(exported, "model.net", 9.0, "test_drone_real")
    write_coord(exported, "model.net", median_m, "test_drone_real")
    options = {"session": "enc-pt1.00-ip-ft1.00", "seed": 1}
    write_sidecar(
        exported / "model.net", make_record(name, stage="decoder", kind="pairs", domain="in_place", options=options)
    )
    return exported / "model.net"


def test_every_stage_has_a_row(curriculum):
    tmp_path, folder, runs = curriculum
    weights = decoder_result(tmp_path, runs["decoder crossloc"].name, 0.75)
    rows = {row.stage: row for row in stages(folder)}
    assert list(rows) == [
        "pretrain coord", "finetune coord", "pretrain depth", "finetune depth", "pretrain normal", "finetune normal",
        "decoder crossloc", "test pretrain", "test finetune", "test decoder",
    ]  # fmt: skip
    assert {name: row.state for name, row in rows.items() if row.state != "open"} == {
        "pretrain coord": "done", "finetune coord": "done", "decoder crossloc": "done", "test decoder": "done",
        "pretrain depth": "interrupted", "pretrain normal": "failed",
    }  # fmt: skip
    coord = rows["pretrain coord"]
    assert (coord.training_seconds, coord.validation_seconds, coord.images) == (3700, 61, 12)
    # The first checkpoint is better, but lies below MIN_CKPT_ITER.
    assert coord.selected == runs["pretrain coord"] / "ckpt_iter_0000012.net"
    assert (coord.figure, coord.unit, coord.section) == (1.5, "m", "val_sim")
    assert rows["decoder crossloc"].section == "val_drone_real" and rows["decoder crossloc"].validation_seconds == 9
    assert rows["pretrain depth"].images == 6 and rows["pretrain depth"].selected is None
    assert rows["finetune depth"].training_seconds is None
    shown = [[line.removeprefix(f"{tmp_path}/") for line in text_table(list(rows.values())).splitlines()]]
    shown.append([{**vars(row), "selected": row.selected and row.selected.name} for row in rows.values()])
    assert_kept("curriculum", shown, exact=True)
    decoder = rows["test decoder"]
    assert (decoder.selected, decoder.figure, decoder.images, decoder.validation_seconds) == (weights, 0.75, 1, 11)


def test_text_csv_and_json(curriculum):
    tmp_path, folder, runs = curriculum
    rows = stages(folder)
    lines = text_table(rows).splitlines()
    assert lines[0].split() == ["stage", "state", "training", "validation", "images", "score", "selected"]
    assert lines[1].split() == ["pretrain", "coord", "done", "1:01:40", "0:01:01", "12", "median",
                                "position", "error", "1.500", "m", "on", "val_sim", "ckpt_iter_0000012.net"]  # fmt: skip
    assert len(lines) == len(rows) + 1 and all(line == line.rstrip() for line in lines)
    write_table(folder, rows)
    table = list(csv.DictReader((folder / "stages.csv").open()))
    content = json.loads((folder / "stages.json").read_text())
    assert [row["stage"] for row in table] == [row["stage"] for row in content] == [row.stage for row in rows]
    assert table[0]["figure"] == "1.5" and content[0]["training_seconds"] == 3700 and content[3]["figure"] is None


def test_results_of_weights_that_were_replaced_do_not_count(curriculum):
    tmp_path, folder, runs = curriculum
    weights = decoder_result(tmp_path, runs["decoder crossloc"].name, 0.75)
    record = make_record("other", stage="decoder", kind="pairs", domain="in_place")
    weights.write_bytes(b"others")
    write_sidecar(weights, record)
    (row,) = (row for row in stages(folder) if row.stage == "test decoder")
    assert row.state == "open" and row.figure is None


def test_a_network_without_a_pose_for_half_of_the_images(curriculum):
    tmp_path, folder, runs = curriculum
    weights = decoder_result(tmp_path, runs["decoder crossloc"].name, 0.75)
    about = Subject("test_drone_real", weights_fingerprint(weights), (SectionRecord("test_drone_real", 7, "c0"),), {})
    assert about.section_fingerprint == subject(weights, "test_drone_real").section_fingerprint

    write_results(weights, "coord", about, _summary_without_pose(), [{"stem": "a"}])
    (row,) = (row for row in stages(folder) if row.stage == "test decoder")
    assert row.images == 7 and str(row.figure) == "nan"
    assert "median position error none m on test_drone_real" in text_table([row])
    write_table(folder, [row])
    assert json.loads((folder / "stages.json").read_text())[0]["figure"] is None


def _summary_without_pose():
    import numpy as np

    from evaluation.metrics import coord_summary

    return coord_summary([float("inf")], [float("inf")], np.array([1.0]))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("python3 train_single_task.py\n", r"no stage is named before 'python3 train_single_task\.py'"),
        (None, "no commands at"),
    ],
)
def test_commands_that_are_absent_or_damaged(tmp_path, text, message):
    if text is not None:
        (tmp_path / COMMANDS_NAME).write_text(text)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        stages(tmp_path)
