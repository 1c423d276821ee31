"""Kills a training again and again and compares what comes out with a run that was left alone.

    python benchmarks/resume_kills.py [--kills 20] [--seed 0]

A run on a small generated section is started, killed by SIGKILL after a random time (also before its first step and while
it writes), resumed, killed again, until it has been killed `--kills` times; then it may end. Its weights have to equal
those of an undisturbed run bit by bit, its CSV and its log lines too. Exit status 1 when they do not.
"""

from __future__ import annotations

import argparse
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

_TIME_STAMP = re.compile(r"^\S+ \S+, INFO: |Avg Time: \S+")


def train_command(data: Path, output: Path, epochs: int) -> list[str]:
    """A tiny training on CPU; the same command starts and resumes."""
    return [
        sys.executable, str(ROOT / "train_single_task.py"), "scene", "--task", "coord", "--tiny", "--image_height", "32",
        "--batch_size", "3", "--real_data_chunk", "0", "--epochs", str(epochs), "--device", "cpu", "--auto_resume",
        "--datasets_dir", str(data), "--output_dir", str(output),
    ]  # fmt: skip


def run_folder(output: Path) -> Path:
    return next(p for p in output.iterdir() if p.is_dir())


def log_lines(folder: Path) -> list[str]:
    """The step lines of output.log without times."""
    lines = (folder / "output.log").read_text().splitlines()
    return [_TIME_STAMP.sub("", line) for line in lines if "Iteration:" in line or "Regression" in line]


def csv_rows(folder: Path) -> list[str]:
    """The rows of the CSV without their time column."""
    return [line.rpartition(",")[0] for line in (folder / "training_log.csv").read_text().splitlines()]


def last_weights(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(max(folder.glob("ckpt_iter_*.net")), weights_only=True)


def undisturbed_run(command: list[str], output: Path) -> tuple[float, float]:
    """Runs `command`; returns the seconds until its first state was written, and until its end."""
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and next(output.glob("*/resume_state.pt"), None) is None:
        time.sleep(0.01)
    first_state = time.perf_counter() - started
    if process.wait():
        raise RuntimeError("the undisturbed run failed")
    return first_state, time.perf_counter() - started


def killed_run(command: list[str], kills: int, longest: float, rng: random.Random) -> list[float]:
    """Runs `command` to its end in spite of `kills` kills; returns the seconds after which each came."""
    moments: list[float] = []
    with tqdm(total=kills, desc="kills", unit="kill") as bar:
        while len(moments) < kills:
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            delay = rng.uniform(0.05, longest)
            try:
                process.wait(delay)
                break  # it has ended by itself
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.wait()
                moments.append(delay)
                bar.update()
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"the last resume failed: {done.stderr.strip().splitlines()[-1]}")
    return moments


def main() -> int:
    from tests.conftest import write_plane_section

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=250)
    parser.add_argument("--seed", type=int, default=0, help="of the moments of the kills")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        write_plane_section(work / "scene" / "train_sim", 10)
        first_state, seconds = undisturbed_run(train_command(work, work / "whole", args.epochs), work / "whole")
        print(f"undisturbed: {seconds:.1f} s, of which {first_state:.1f} s until the first state")
        # Most kills fall around the first state: into start-up, writing and the first steps after a resume.
        command = train_command(work, work / "killed", args.epochs)
        moments = killed_run(command, args.kills, 1.5 * first_state, random.Random(args.seed))
        whole, killed = run_folder(work / "whole"), run_folder(work / "killed")
        a, b = last_weights(whole), last_weights(killed)
        same = {
            "weights": a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a),
            "log": log_lines(whole) == log_lines(killed),
            "CSV": csv_rows(whole) == csv_rows(killed),
        }
    print(f"killed {len(moments)} times after {', '.join(f'{m:.1f}' for m in moments)} s")
    for name, equal in same.items():
        print(f"{name}: {'identical' if equal else 'DIFFERENT'}")
    return 0 if all(same.values()) and len(moments) == args.kills else 1


if __name__ == "__main__":
    sys.exit(main())
