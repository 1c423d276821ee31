"""Trainings of seconds on small analytic sections."""

import os
import sys
from argparse import ArgumentParser
from dataclasses import fields, is_dataclass

from training.options import add_arguments, options_from

SMALL = ["--tiny", "--uncertainty", "mle", "--image_height", "32", "--batch_size", "2", "--real_data_chunk", "0",
         "--device", "cpu"]  # fmt: skip
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def options(tmp_path, *arguments, scene="scene", task="coord"):
    parser = ArgumentParser()
    add_arguments(parser)
    folders = ["--datasets_dir", str(tmp_path), "--output_dir", str(tmp_path / "out")]
    return options_from(parser.parse_args([scene, "--task", task, *folders, *map(str, arguments)]))


def command(repository, tmp_path, *arguments):
    folders = ["--datasets_dir", str(tmp_path), "--output_dir", str(tmp_path / "out")]
    script = str(repository / "train_single_task.py")
    return [sys.executable, script, "scene", "--task", "coord", *folders, *map(str, arguments)]


def parsed(*arguments, add=add_arguments, complete=options_from):
    """The options of these flags, for the scene `town` and the task coord."""
    parser = ArgumentParser()
    add(parser)
    return complete(parser.parse_args(["town", "--task", "coord", *arguments]))


def flat(options):
    """All options by name, those of groups too."""
    values = {}
    for field in fields(options):
        value = getattr(options, field.name)
        values.update(flat(value) if is_dataclass(value) else {field.name: value})
    return values
