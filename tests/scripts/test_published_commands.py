"""All ninety commands of the published notes: what each script runs, and the folder name of each training."""

import os
import shlex
from argparse import ArgumentParser
from pathlib import Path

import pytest

from tests.scripts.test_dry_run import run_script
from training import options
from training.names import run_name

HERE = Path(__file__).parent
TABLE = HERE / "published_commands.txt"
STORED = HERE / "expected" / "published_commands_run.txt"


def rows():
    """(number, environment, words) of every published command."""
    for line in TABLE.read_text().splitlines():
        number, *words = line.split()
        environment = dict(word.split("=", 1) for word in words if "=" in word)
        yield int(number), environment, [word for word in words if "=" not in word]


def name_of(command: str) -> str:
    """Folder name of the run that a training command starts."""
    _, program, *words = shlex.split(command)
    decoder = program.endswith("finetune_decoder_single_task.py")
    parser = ArgumentParser()
    (options.add_decoder_arguments if decoder else options.add_arguments)(parser)
    args = parser.parse_args(words)
    return run_name((options.decoder_options_from if decoder else options.options_from)(args))


def ran(repository, number, environment, words) -> str:
    """What a command runs, a line each, with the name of the run that it starts."""
    if words[0] == "test_single_task.py":
        return f"{number}: {' '.join(words)}\n"
    result = run_script(repository, words[0], words[1:], environment)
    assert result.returncode == 0, result.stderr
    commands = result.stdout.replace(f"{repository}/", "").splitlines()
    names = [f"{number}= {name_of(line)}" for line in commands if "train_single" in line or "finetune_decoder" in line]
    return "".join(f"{number}: {line}\n" for line in commands) + "".join(f"{line}\n" for line in names)


def test_every_published_command_runs_as_stored(repository):
    table = list(rows())
    assert [number for number, _, _ in table] == list(range(1, 91))
    text = "".join(ran(repository, *row) for row in table)
    if os.environ.get("UPDATE_EXPECTED"):
        STORED.write_text(text)
    assert text == STORED.read_text()


@pytest.mark.parametrize(
    "number, name",
    [
        (5, "naturescape-coord-sclean_training-unc-MLE-e100-lr0.0002-sim_only-sc1.00"),
        (4, "urbanscape-semantics-sclean_training-no_unc-fullsize-e30-lr0.0002-sim_only-sc1.00"),
        (9, "urbanscape-coord-sclean_training-unc-MLE-e1000-lr0.0001-pairs-ip-rc1.00"),
        (13, "urbanscape-coord-sclean_training-unc-MLE-e2000-lr0.0001-real_only-ip-rc1.00"),
        (37, "urbanscape-coord-sclean_training_pt1.00-unc-MLE-e3000-lr0.0001-pairs-oop-rc1.00-finetune"),
        (41, "naturescape-coord-sclean_training_pt1.00-unc-MLE-e800-lr0.0001-pairs-ip-rc1.00-finetune"),
        (73, "naturescape-coord-decoder_coord_free_depth_normal-senc-pt1.00-ip-ft1.00-unc-MLE-e1000-lr0.0001"
             "-pairwise-ip-rc1.00"),
        (70, "urbanscape-coord-decoder_coord_free_depth_normal_semantics-senc-pt1.00-ip-ft1.00-unc-MLE-e1000-lr0.0001"
             "-pairwise-ip-rc1.00"),
        (84, "urbanscape-coord-decoder_coord_free_depth_normal-senc-real-only-pt0.00-ip-ft1.00-unc-MLE-e1000-lr0.0001"
             "-real_only-ip-rc1.00"),
    ],
)  # fmt: skip
def test_runs_have_the_published_names(number, name):
    assert f"{number}= {name}\n" in STORED.read_text()


def test_every_program_that_the_stored_commands_name_accepts_them():
    """The flags are those that the programs declare today, not those of a stored text."""
    from evaluation.options import parse_options

    for line in STORED.read_text().splitlines():
        number, _, command = line.partition(": ")
        words = shlex.split(command)
        if "test_single_task.py" in words[:2]:
            parse_options(words[words.index("test_single_task.py") + 1 :])
