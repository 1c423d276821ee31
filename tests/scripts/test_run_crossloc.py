"""The whole curriculum by one command: its commands, its order, failures, interruptions, and a miniature of it."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import write_plane_section
from tests.scripts.test_dry_run import EXPECTED, run_script
from tests.scripts.test_published_commands import name_of

SCRIPT = "script_clean_training/run_crossloc.sh"
ENCODER_STAGES = ("pretrain", "validate pretrain", "finetune", "validate finetune")
CASES = {
    "run_crossloc": (["urbanscape", "in_place"], {}),
    "run_crossloc_out_of_place": (
        ["field", "out_of_place", "TINY"],
        {"TASKS": "normal coord", "PRETRAIN_EPOCHS": "3", "PRETRAIN_LR": "0.01", "PRETRAIN_ARGS": "--optimizer muon",
         "EXTRA_ARGS": "--seed 1", "FINETUNE_MIN_CKPT_ITER": "77", "MIN_CKPT_ITER": "5", "OVERVIEW": "/picture.png"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_commands(repository, name):
    arguments, environment = CASES[name]
    result = run_script(repository, SCRIPT, arguments, environment)
    assert result.returncode == 0, result.stderr
    commands = result.stdout.replace(f"{repository}/", "")
    stored = EXPECTED / f"{name}.txt"
    if os.environ.get("UPDATE_EXPECTED"):
        stored.write_text(commands)
    assert commands == stored.read_text()


def test_every_stage_starts_from_what_the_one_before_left(repository):
    """The published names of the runs, and weights that go where the next stage looks."""
    lines = run_script(repository, SCRIPT, ["urbanscape"], {}).stdout.splitlines()
    trained = [name_of(line) for line in lines if "train_single_task.py" in line or "finetune_decoder" in line]
    assert trained[-2:] == [
        f"urbanscape-coord-decoder_coord_free_depth_normal{more}-senc-pt1.00-ip-ft1.00-unc-MLE-e1000-lr0.0001-pairwise-ip-rc1.00"
        for more in ("", "_semantics")
    ]
    stages = [line.removeprefix("# ") for line in lines if line.startswith("# ")]
    tasks = ("coord", "depth", "normal", "semantics")
    assert stages == [f"{stage} {task}" for task in tasks for stage in ENCODER_STAGES] + [
        "decoder crossloc", "decoder crossloc_se", "validate decoder", "test pretrain", "test finetune", "test decoder",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "arguments, environment, message",
    [
        ([], {}, "usage: run_crossloc.sh SCENE"),
        (["demo", "space"], {}, "unknown DOMAIN 'space'"),
        (["demo", "in_place", "HUGE"], {}, "unknown NET_DEPTH 'HUGE'"),
        (["demo", "in_place", "TINY", "colour"], {}, "unknown PART 'colour'"),
        (["demo"], {"TASKS": "depth normal"}, "TASKS must name coord, got 'depth normal'"),
        (["demo"], {"TASKS": "coord colour"}, "unknown TASKS 'colour'"),
        (["demo"], {"JOBS": "0"}, "JOBS must be a whole number above 0, got '0'"),
        (["atlantis"], {"DRY_RUN": "0"}, "unknown data set 'atlantis'"),
    ],
)
def test_refusals(repository, arguments, environment, message):
    result = run_script(repository, SCRIPT, arguments, environment)
    assert result.returncode == 2 and result.stdout == ""
    assert message in result.stderr and len(result.stderr.strip().splitlines()) == 1


@pytest.fixture
def stage_runner(repository, tmp_path):
    """Runs the script with a stand-in for Python that writes down its calls, takes a moment, and fails as told.

    A training of a run leaves the weights that the next stage asks for; `failures` maps a word of a command to its status.
    """
    (tmp_path / "data" / "scene").mkdir(parents=True)
    stand_in = tmp_path / "python"

    def run(*arguments, failures=None, **environment):
        cases = "".join(
            f'*"{word}"*) echo "error: it broke" >&2; exit {status} ;;\n' for word, status in (failures or {}).items()
        )
        stand_in.write_text(
            f'#!/bin/bash\necho "begin $*" >>"{tmp_path}/calls"\n'
            f'echo "${{CROSSLOC_THREADS:-all}}" >>"{tmp_path}/threads"\n'
            f'[ -z "${{CUDA_VISIBLE_DEVICES:-}}" ] || echo "$CUDA_VISIBLE_DEVICES" >>"{tmp_path}/gpus"\nsleep 0.05\n'
            f'case "$*" in\n{cases}*) ;;\nesac\necho "end $*" >>"{tmp_path}/calls"\n'
        )
        stand_in.chmod(0o755)
        weights = tmp_path / "w"
        for task in ("coord", "depth", "normal", "semantics"):
            for path in (f"encoders-pretraining/scene/{task}/model-sc-1.00.net",
                         f"encoders-finetuning/scene/in_place/{task}/model-sc-1.00-rc-1.00.net"):  # fmt: skip
                (weights / path).parent.mkdir(parents=True, exist_ok=True)
                (weights / path).touch()
        (tmp_path / "calls").write_text("")
        folders = {"DATASETS_DIR": f"{tmp_path}/data", "OUTPUT_DIR": f"{tmp_path}/out", "WEIGHTS_DIR": str(weights)}
        result = run_script(
            repository, SCRIPT, arguments, {"DRY_RUN": "0", **folders, "PYTHON": str(stand_in), **environment}
        )
        return result, (tmp_path / "calls").read_text().splitlines()

    return run


def programs(calls, word="begin"):
    """Programs, with their task, in the order of the calls."""
    found = []
    for line in calls:
        words = shlex.split(line)
        if words[0] == word and len(words) > 1:
            task = words[words.index("--task") + 1] if "--task" in words else ""
            found.append(f"{Path(words[1]).stem} {task}".strip())
    return found


CHAIN = ("train_single_task", "test_single_task", "select_ckpt", "train_single_task", "test_single_task", "select_ckpt")


def test_stages_run_one_after_the_other(stage_runner):
    result, calls = stage_runner("scene", "in_place", "TINY", TASKS="coord depth")
    assert result.returncode == 0, result.stderr
    expected = [f"{program} {task}" for task in ("coord", "depth") for program in CHAIN]
    assert programs(calls) == [*expected, *["test_single_task coord"] * 2, "crossloc_table"]
    assert [line.split()[0] for line in calls] == ["begin", "end"] * (len(calls) // 2)  # nothing side by side


def test_trainings_side_by_side_are_spread_over_the_gpus(stage_runner, tmp_path):
    result, calls = stage_runner("scene", JOBS="3", CUDA_VISIBLE_DEVICES="4,7")
    assert result.returncode == 0, result.stderr
    words = [line.split()[0] for line in calls]
    assert any(words[i : i + 2] == ["begin", "begin"] for i in range(len(words)))
    for task in ("depth", "normal", "semantics"):
        assert [p for p in programs(calls) if p.endswith(task)] == [f"{program} {task}" for program in CHAIN]
    begun, ended = programs(calls), programs(calls, "end")
    assert begun.count("finetune_decoder_single_task coord") == 2
    first_decoder = begun.index("finetune_decoder_single_task coord")
    assert all(begun[:first_decoder].count(f"select_ckpt {task}") == 2 for task in ("coord", "depth", "normal", "semantics"))
    assert len(begun) == len(ended)
    cores = int(subprocess.run(["nproc"], capture_output=True, text=True, env={"PATH": os.environ["PATH"]}).stdout)
    threads = (tmp_path / "threads").read_text().split()
    assert set(threads[:-6]) == {str(-(-cores // 3))} and set(threads[-6:]) == {"all"}
    gpus = (tmp_path / "gpus").read_text().split()
    assert {"4", "7"} <= set(gpus)
    logs = {path.name for path in (tmp_path / "out" / "crossloc_scene_in_place_full").glob("*.log")}
    assert logs == {f"{part}.log" for part in ("coord", "depth", "normal", "semantics", "crossloc", "crossloc_se")}


def test_a_failure_stops_its_own_chain_and_what_needs_it(stage_runner, tmp_path):
    broken, chosen = {"train_single_task.py scene --task depth": 2}, {"TASKS": "depth coord normal", "JOBS": "2"}
    result, calls = stage_runner("scene", failures=broken, **chosen)
    assert result.returncode == 2
    assert "pretrain depth: FAILED (status 2); error: it broke" in result.stdout and "not complete" in result.stderr
    assert [p for p in programs(calls) if p.endswith("depth")] == ["train_single_task depth"]
    for task in ("coord", "normal"):
        assert [p for p in programs(calls) if p.endswith(task)] == [f"{program} {task}" for program in CHAIN]
    assert "finetune_decoder_single_task coord" not in programs(calls)
    result, calls = stage_runner("scene", **chosen)
    assert result.returncode == 0 and programs(calls).count("finetune_decoder_single_task coord") == 1
    journal = (tmp_path / "out" / "crossloc_scene_in_place_full" / "journal.csv").read_text().splitlines()
    assert [line.split(",")[-1] for line in journal if line.startswith("pretrain depth,")] == ["2", "0"]


def test_an_interruption_begins_nothing_else(stage_runner):
    interrupted = {"train_single_task.py scene --task depth": 130}
    result, calls = stage_runner("scene", failures=interrupted)
    assert result.returncode == 130 and "pretrain depth: interrupted" in result.stdout
    assert {p.split()[1] for p in programs(calls)} == {"coord", "depth"}


def test_a_failure_of_the_test_is_the_commands(stage_runner):
    result, calls = stage_runner("scene", failures={"--section test_drone_real": 2}, TASKS="coord")
    assert result.returncode == 2 and "test pretrain: FAILED (status 2)" in result.stdout
    assert programs(calls)[-2:] == ["test_single_task coord", "crossloc_table"]
    assert programs(calls).count("test_single_task coord") == 3  # two validations, and one test


def test_an_interrupted_miniature_is_completed_by_a_second_call(repository, tmp_path):
    """A real one: Ctrl-C while the network pre-trains, and the same command again."""
    sections = ("train_sim", "val_sim", "train_drone_sim", "train_drone_real", "val_drone_real", "test_drone_real")
    for seed, name in enumerate(sections):
        write_plane_section(tmp_path / "data" / "scene" / name, 2, seed=seed)
    environment = {
        **{k: v for k, v in os.environ.items() if k in ("PATH", "HOME", "LANG")}, "OMP_NUM_THREADS": "1",
        "PYTHON": sys.executable, "DATASETS_DIR": "data", "OUTPUT_DIR": "out", "WEIGHTS_DIR": "weights", "TASKS": "coord",
        "PRETRAIN_EPOCHS": "40", "PRETRAIN_MIN_CKPT_ITER": "75", "FINETUNE_EPOCHS": "2", "FINETUNE_MIN_CKPT_ITER": "4",
        "BATCH_SIZE": "2", "IMAGE_HEIGHT": "32",
    }  # fmt: skip
    command = ["bash", str(repository / SCRIPT), "scene", "in_place", "TINY"]
    first = subprocess.Popen(command, cwd=tmp_path, env=environment, start_new_session=True, stdout=subprocess.PIPE,
                             stderr=subprocess.STDOUT, text=True)  # fmt: skip
    deadline = time.monotonic() + 240
    while not list(tmp_path.glob("out/*/ckpt_iter_0000002.net")) and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(first.pid, signal.SIGINT)  # as a terminal does
    text, _ = first.communicate(timeout=600)
    assert first.returncode in (130, -signal.SIGINT) and "continue with --auto_resume" in text, text
    assert not (tmp_path / "weights").exists()

    second = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert second.returncode == 0, second.stdout + second.stderr
    rows = json.loads((tmp_path / "out" / "crossloc_scene_in_place_tiny" / "stages.json").read_text())
    assert [(row["stage"], row["state"], row["images"]) for row in rows] == [
        ("pretrain coord", "done", 80),
        ("finetune coord", "done", 8),
        ("test pretrain", "done", 2),
        ("test finetune", "done", 2),
    ]
    assert [Path(row["selected"]).name for row in rows[2:]] == ["model-sc-1.00.net", "model-sc-1.00-rc-1.00.net"]
    result = json.loads(
        Path(f"{Path(rows[3]['selected']).parent}/results_model-sc-1.00-rc-1.00.net_task_coord.json").read_text()
    )
    assert rows[3]["figure"] == result["evaluations"][-1]["summary"]["translation_m"]["median"]
    assert rows[0]["section"] == "val_sim" and rows[1]["section"] == "val_drone_real"
    log = next(tmp_path.glob("out/scene-coord-sclean_training-*/output.log")).read_text()
    assert "Resumed after" in log and log.count("Iteration:      80") == 1
    for row in rows:
        assert row["stage"] in second.stdout and row["title"] in second.stdout
