"""Shares and clusters write the bytes that one machine writes, whatever happens to a worker."""

from __future__ import annotations

import json
import os
import signal
import threading
import time

import pytest

from datagen import sections, spread
from datagen.__main__ import main

from .test_commands import content, names_in
from .test_photos import flight, run_photos  # noqa: F401 - a fixture
from .test_sampling import preset_document


@pytest.fixture
def run(hills, tmp_path):
    preset = tmp_path / "preset.json"
    preset.write_text(json.dumps(preset_document(nbImages=24)))

    def command(out, *more) -> int:
        words = ["sections", *hills.arguments(), "--preset", str(preset), "--scene", "s", "--width", "96", "--height", "64"]
        words += ["--focal", "80", "--backdrop", "elsewhere", "--workers", "2", "--output_dir", str(tmp_path / out)]
        return main([*words, *more])

    return command


@pytest.fixture
def whole(run, tmp_path):
    """Contents of the sections as one machine makes them."""
    assert run("whole") == 0
    return without_locks(tmp_path / "whole" / "s")


def without_locks(folder):
    return {name: data for name, data in content(folder).items() if not name.endswith(".lock")}


def test_shares_join_to_the_same_bytes(run, whole, tmp_path, monkeypatch, capsys):
    scene_dir = tmp_path / "shares" / "s"
    assert run("shares", "--shard", "2/3") == 0
    assert not (scene_dir / "train_sim").exists(), "nothing is seen before all of it is there"
    # A share that is killed leaves nothing and is done again; one that is done is not.
    write, seen = sections.write_sample, []

    def interrupted(folder, camera, view):
        seen.append(camera.stem)
        if len(seen) == 3:
            raise KeyboardInterrupt
        write(folder, camera, view)

    monkeypatch.setattr(sections, "write_sample", interrupted)
    assert run("shares", "--shard", "1/3") == 130
    assert [p.name for p in scene_dir.glob(".shards-*/*") if not p.name.startswith(".")] == ["part-2"]
    monkeypatch.setattr(sections, "write_sample", lambda *args: seen.append("again") or write(*args))
    assert run("shares", "--shard", "2/3") == 0 and "again" not in seen
    assert run("shares", "--shard", "1/3") == 0 and run("shares", "--shard", "3/3") == 0
    assert without_locks(scene_dir) == whole
    assert names_in(scene_dir) == ["s_lhs_split.txt", "scene.json", "train_sim", "val_sim"], "no share is left"
    assert run("shares", "--shard", "3/3", "--resume") == 0
    capsys.readouterr()
    for wrong in ("0/3", "4/3", "1", "a/b"):
        with pytest.raises(SystemExit):
            run("shares", "--shard", wrong)
        assert "is not I/N with I from 1 to N" in capsys.readouterr().err


def test_shares_of_other_settings_do_not_mix(run, tmp_path):
    assert run("other", "--shard", "1/2") == 0 and run("other", "--shard", "2/2", "--seed", "5") == 0
    assert len(list((tmp_path / "other" / "s").glob(".shards-*/part-*"))) == 2
    assert not (tmp_path / "other" / "s" / "train_sim").exists()


def test_photos_in_shares(flight, hills, tmp_path):  # noqa: F811
    for out, shards in (("a", [()]), ("b", [("--shard", "1/2"), ("--shard", "2/2")])):
        assert [run_photos(flight, hills, tmp_path / out, *shard) for shard in shards] == [0] * len(shards)
    assert without_locks(tmp_path / "a" / "s") == without_locks(tmp_path / "b" / "s")


def test_a_cluster_that_loses_a_worker(run, whole, tmp_path, monkeypatch, capsys):
    distributed = pytest.importorskip("distributed", reason="the package distributed is not installed")
    monkeypatch.setattr(spread, "_BATCH", 1)
    killed = []

    def kill_one(cluster):
        while not list((tmp_path / "cluster").glob("s/.making-*/new/*/rgb/*.png")):
            time.sleep(0.005)
        killed.append(next(iter(cluster.workers.values())).process.pid)
        os.kill(killed[0], signal.SIGKILL)

    options = {"n_workers": 2, "threads_per_worker": 1, "processes": True, "dashboard_address": None}
    with distributed.LocalCluster(**options) as cluster:
        killer = threading.Thread(target=kill_one, args=(cluster,), daemon=True)
        killer.start()
        assert run("cluster", "--scheduler", cluster.scheduler_address) == 0
        killer.join(timeout=10)
        assert killed and without_locks(tmp_path / "cluster" / "s") == whole
        # What a task raises reaches the user, and nothing is left.
        on_cluster = spread._run_on_cluster
        monkeypatch.setattr(
            spread, "_run_on_cluster", lambda address, folder, *rest: on_cluster(address, folder / "elsewhere", *rest)
        )
        capsys.readouterr()
        assert run("none", "--scheduler", cluster.scheduler_address) == 2
        assert "not seen from a worker; all machines need the same files" in capsys.readouterr().err
        assert not (tmp_path / "none").exists()


def test_no_scheduler(run, tmp_path, monkeypatch, capsys):
    pytest.importorskip("distributed", reason="the package distributed is not installed")
    monkeypatch.setattr(spread, "_CONNECT_S", 1)
    assert run("none", "--scheduler", "tcp://127.0.0.1:9") == 2
    assert "no Dask scheduler answers at tcp://127.0.0.1:9" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()
