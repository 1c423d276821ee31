"""The bash scripts by DRY_RUN=1 against stored command lines, and their refusals."""

import os
import subprocess
from pathlib import Path

import pytest

EXPECTED = Path(__file__).parent / "expected"
TRAINING, VALIDATION = "script_clean_training", "script_clean_validation"
CASES = {
    "pretrain_default": (f"{TRAINING}/encoder_pretrain.sh", [], {}),
    "pretrain_tiny_chunk": (f"{TRAINING}/encoder_pretrain.sh", ["naturescape", "coord", "TINY", "0.5"], {}),
    "pretrain_depth": (f"{TRAINING}/encoder_pretrain.sh", ["urbanscape", "depth", "", "", "", "", "none", "1"], {}),
    "pretrain_semantics": (f"{TRAINING}/encoder_pretrain.sh", ["urbanscape", "semantics"], {}),
    "pretrain_environment": (
        f"{TRAINING}/encoder_pretrain.sh", ["field"],
        {"EPOCHS": "3", "BATCH_SIZE": "2", "LR": "0.01", "IMAGE_HEIGHT": "160", "CKPT_DIR": "/ckpt",
         "EXTRA_ARGS": "--lr_schedule onecycle --seed 7"},
    ),
    "finetune_in_place": (f"{TRAINING}/encoder_finetune.sh", ["naturescape", "coord"], {}),
    "finetune_urbanscape": (f"{TRAINING}/encoder_finetune.sh", ["urbanscape", "normal", "FULL", "1.0"], {}),
    "finetune_out_of_place": (
        f"{TRAINING}/encoder_finetune.sh", ["urbanscape", "coord", "FULL", "0.25", "out_of_place", "0.5"], {},
    ),
    "validate_pretrain": (f"{VALIDATION}/validate_encoder_pretrain.sh", ["urbanscape", "coord"], {"CKPT_DIR": "/ckpt"}),
    "validate_finetune": (
        f"{VALIDATION}/validate_encoder_finetune.sh", ["urbanscape", "coord", "TINY"],
        {"CKPT_DIR": "/ckpt", "MIN_CKPT_ITER": "1000"},
    ),
    "ddloc_default": (
        f"{TRAINING}/ddloc.sh", ["naturescape", "out_of_place"], {"OUTPUT_DIR": "/out", "DATASETS_DIR": "/data"},
    ),
    "ddloc_environment": (
        f"{TRAINING}/ddloc.sh", ["field", "in_place", "transposenet"],
        {"OUTPUT_DIR": "/out", "DATASETS_DIR": "/data", "EPOCHS": "3", "EPOCHS_T": "5", "BATCH_SIZE": "2",
         "BATCH_SIZE_C": "4", "LR": "0.01", "LR_joint": "0.001", "IMAGE_HEIGHT": "160",
         "PROJECT": "mine", "ENC_PRETRAINED": "/w.net", "EXTRA_ARGS": "--tiny --width 8",
         "EXTRA_ARGS_finetune": "--save_steps 2"},
    ),
    "e2e": (f"{TRAINING}/encoder_e2e.sh", ["urbanscape", "coord", "TINY"], {}),
    "e2e_decoder": (
        f"{TRAINING}/encoder_e2e.sh", ["urbanscape", "coord", "FULL", "1", "in_place", "0.5"],
        {"E2E_WEIGHTS": "/weights/model.net", "EPOCHS": "7", "LR": "0.00001", "NPROC": "2"},
    ),
    "validate_e2e": (f"{VALIDATION}/validate_encoder_e2e.sh", ["urbanscape", "coord", "TINY"], {"CKPT_DIR": "/ckpt"}),
    "validate_finetune_oop": (
        f"{VALIDATION}/validate_encoder_finetune.sh", ["urbanscape", "coord"], {"CKPT_DIR": "/ckpt/run-oop-rc1.00"},
    ),
}  # fmt: skip


def run_script(repository, script, arguments, environment):
    clean = {k: v for k, v in os.environ.items() if k in ("PATH", "HOME", "LANG", "LC_ALL")}
    return subprocess.run(
        ["bash", str(repository / script), *arguments], capture_output=True, text=True,
        env={**clean, "DRY_RUN": "1", "PYTHON": "python3", **environment},
    )  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_commands(repository, name):
    result = run_script(repository, *CASES[name])
    assert result.returncode == 0, result.stderr
    commands = result.stdout.replace(f"{repository}/", "")
    stored = EXPECTED / f"{name}.txt"
    if os.environ.get("UPDATE_EXPECTED"):
        stored.write_text(commands)
    assert commands == stored.read_text()


@pytest.mark.parametrize(
    "script, arguments, environment, message",
    [
        (f"{TRAINING}/encoder_pretrain.sh", ["urbanscape", "colour"], {}, "unknown TASK 'colour'"),
        (f"{TRAINING}/encoder_pretrain.sh", ["urbanscape", "coord", "HUGE"], {}, "unknown NET_DEPTH 'HUGE'"),
        (f"{TRAINING}/encoder_pretrain.sh", ["urbanscape", "coord", "FULL", "2"], {}, "SIM_CHUNK"),
        (f"{TRAINING}/encoder_pretrain.sh", ["urbanscape", "coord", "FULL", "1", "mars"], {}, "unknown REAL_DOMAIN 'mars'"),
        (f"{TRAINING}/encoder_pretrain.sh", ["urbanscape", "", "FULL", "1", "", "", "maybe"], {}, "unknown UNC 'maybe'"),
        (f"{TRAINING}/encoder_pretrain.sh", list("abcdefghi"), {}, "at most 8 arguments"),
        (f"{TRAINING}/ddloc.sh", ["field", "mars"], {}, "unknown DOMAIN 'mars'"),
        (f"{TRAINING}/ddloc.sh", ["field", "in_place", "forest"], {}, "unknown REGRESSOR 'forest'"),
        (f"{TRAINING}/ddloc.sh", list("abcde"), {}, "at most 4 arguments"),
        (f"{TRAINING}/ddloc.sh", ["atlantis"], {"DRY_RUN": "0"}, "unknown data set 'atlantis'"),
        (f"{TRAINING}/encoder_pretrain.sh", ["atlantis"], {"DRY_RUN": "0"}, "unknown data set 'atlantis'"),
        (f"{VALIDATION}/validate_encoder_pretrain.sh", ["urbanscape"], {"MIN_CKPT_ITER": "many"}, "MIN_CKPT_ITER"),
        (f"{TRAINING}/encoder_e2e.sh", ["urbanscape", "depth"], {}, "poses come out of the task coord, not of 'depth'"),
        (f"{TRAINING}/encoder_pretrain.sh", ["urbanscape"], {"NPROC": "many"}, "NPROC must be a positive number"),
        (f"{TRAINING}/encoder_pretrain.sh", ["urbanscape"], {"NNODES": "2"}, "NNODES=2 needs MASTER_ADDR"),
        (
            f"{TRAINING}/encoder_pretrain.sh", ["urbanscape"], {"NNODES": "2", "MASTER_ADDR": "a", "NODE_RANK": "2"},
            "needs NODE_RANK, this machine's number from 0 to 1, got '2'",
        ),
        (f"{TRAINING}/encoder_pretrain.sh", ["urbanscape", *[""] * 6, "1"], {"NPROC": "2"}, "CUDA_ID chooses one GPU"),
        (f"{TRAINING}/slurm_example.sh", ["urbanscape", "coord"], {}, "submit it with sbatch"),
    ],
)  # fmt: skip
def test_refusals(repository, script, arguments, environment, message):
    result = run_script(repository, script, arguments, environment)
    assert result.returncode == 2 and result.stdout == ""
    assert message in result.stderr and len(result.stderr.strip().splitlines()) == 1


def test_fine_tuning_without_pretraining_says_what_to_run(repository, tmp_path):
    (tmp_path / "field").mkdir()
    environment = {"DRY_RUN": "0", "DATASETS_DIR": str(tmp_path), "WEIGHTS_DIR": str(tmp_path / "none")}
    result = run_script(repository, f"{TRAINING}/encoder_finetune.sh", ["field"], environment)
    assert result.returncode == 2 and "validate_encoder_pretrain.sh" in result.stderr


@pytest.mark.parametrize("arguments", [["--dry-run"], ["--dry-run", "--photos", "PHOTOS"]])
def test_quickstart_chains_the_published_steps(repository, tmp_path, arguments):
    photos = tmp_path / "field"
    photos.mkdir()
    (photos / "cameras.json").write_text(
        '{"width": 1440, "height": 810, "focal_length_px": 1004.25, "principal_point_px": [720, 405], "photos": []}'
    )
    arguments = [str(photos) if a == "PHOTOS" else a for a in arguments]
    result = run_script(repository, "setup/quickstart.sh", arguments, {})
    assert result.returncode == 0, result.stderr
    programs = [line for line in result.stdout.splitlines() if line.startswith("python3")]
    order = ["datagen", "train_single_task.py", "test_single_task.py", "select_ckpt.py", "train_single_task.py",
             "test_single_task.py", "select_ckpt.py", "test_single_task.py", "test_single_task.py"]  # fmt: skip
    positions = iter(programs)
    assert all(any(step in line for line in positions) for step in order)
    assert not any("test_drone" in line for line in programs if "train_single" in line or "select" in line)


def test_a_fast_quickstart_trains_by_the_preset_in_folders_of_its_own(repository):
    result = run_script(repository, "setup/quickstart.sh", ["--dry-run"], {"PRESET": "fast"})
    assert result.returncode == 0, result.stderr
    trainings = [line.split() for line in result.stdout.splitlines() if "train_single_task.py" in line]
    assert len(trainings) == 2
    for words in trainings:
        assert words[words.index("--preset") + 1] == "fast" and words[words.index("--output_dir") + 1].endswith(
            "output-fast"
        )
    assert [words[words.index("--epochs") + 1] for words in trainings] == ["6", "4"]
    assert "/weights-clean-fast/encoders-pretraining/" in trainings[1][trainings[1].index("--network_in") + 1]
    result = run_script(repository, "setup/quickstart.sh", ["--dry-run"], {"PRESET": "slow"})
    assert result.returncode == 2 and result.stderr == "error: unknown PRESET 'slow'; choose from: fast\n"


@pytest.mark.parametrize(
    "environment, launcher",
    [
        ({}, "python3 "),
        ({"NPROC": "1", "NNODES": "1"}, "python3 "),
        ({"NPROC": "4"}, "python3 -m torch.distributed.run --nnodes 1 --nproc_per_node 4 --standalone "),
        (
            {"NPROC": "4", "NNODES": "2", "MASTER_ADDR": "10.0.0.1", "SLURM_NODEID": "1"},
            "python3 -m torch.distributed.run --nnodes 2 --nproc_per_node 4 --node_rank 1 --master_addr 10.0.0.1 "
            "--master_port 29500 ",
        ),
    ],
)
@pytest.mark.parametrize("script", ["encoder_pretrain.sh", "decoder_finetune.sh"])
def test_several_processes_are_started_by_torchrun(repository, environment, launcher, script):
    result = run_script(repository, f"{TRAINING}/{script}", ["urbanscape"], environment)
    assert result.returncode == 0, result.stderr
    program = "train_single_task.py" if script == "encoder_pretrain.sh" else "finetune_decoder_single_task.py"
    assert result.stdout.startswith(f"{launcher}{repository}/{program} urbanscape --task coord ")
