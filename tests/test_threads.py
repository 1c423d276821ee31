"""How many cores a command takes, and that libraries keep to one thread each."""

import os
import subprocess
import sys

import pytest

import threads

REPORT = """
from threads import configure_threads
{}
cores = configure_threads()
import cv2, torch
print(cores, torch.get_num_threads(), cv2.getNumThreads(), configure_threads())
"""


def numbers(repository, before="", **wishes):
    clean = {k: v for k, v in os.environ.items() if not k.endswith(("_THREADS", "THREADS_NUM"))}
    command = [sys.executable, "-c", REPORT.format(before)]
    result = subprocess.run(command, cwd=repository, env={**clean, **wishes}, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return [int(word) for word in result.stdout.split()]


def test_libraries_get_one_thread_and_the_wish_is_kept(repository):
    assert numbers(repository, OMP_NUM_THREADS="3,2") == [3, 1, 1, 3]
    # What a child process inherits: the library's one thread is not the wish.
    assert numbers(repository, CROSSLOC_THREADS="2", OMP_NUM_THREADS="1") == [2, 1, 1, 2]


def test_libraries_that_are_loaded_already_are_told(repository):
    assert numbers(repository, before="import cv2, torch; torch.set_num_threads(2)", OMP_NUM_THREADS="2") == [2, 1, 1, 2]


def test_without_a_wish_or_with_nonsense_all_available_cores_count(repository, monkeypatch):
    assert numbers(repository, OMP_NUM_THREADS="many")[:2] == [threads.available_cores(), 1]
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 5}, raising=False)
    monkeypatch.setattr(threads, "_container_quota", lambda cgroup: None)
    assert threads.available_cores() == 3


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({"cpu.max": "150000 100000\n"}, 1.5),
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "400000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 4.0),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({}, None),
    ],
)
def test_a_containers_quota_cuts_the_cores(tmp_path, monkeypatch, files, quota):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert threads._container_quota(tmp_path) == quota
    monkeypatch.setattr(threads, "_CGROUP", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    assert threads.available_cores() == (8 if quota is None else int(quota))


def test_half_a_core_is_one(tmp_path, monkeypatch):
    (tmp_path / "cpu.max").write_text("50000 100000\n")
    monkeypatch.setattr(threads, "_CGROUP", tmp_path)
    assert threads.available_cores() == 1
