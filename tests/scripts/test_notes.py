"""The notes of all steps name the ninety published commands, and what else they say can be typed."""

import re
import shlex

from tests.scripts.test_dry_run import run_script
from tests.scripts.test_published_commands import rows

NOTES = "script_clean_training/notes_crossloc_full_steps.md"


def commands(text, language):
    """Words of the command lines in the fenced blocks of a language: bash the ninety commands, sh whatever else."""
    for block in re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL):
        yield from (shlex.split(line) for line in block.splitlines())


def plain(words):
    """(environment, words) of a command, without its interpreter."""
    environment = dict(word.split("=", 1) for word in words if re.fullmatch(r"[A-Z_]+=.*", word))
    return environment, [word for word in words if not re.fullmatch(r"[A-Z_]+=.*", word) and word not in ("bash", "python3")]


def test_the_notes_hold_the_ninety_commands_in_order(repository):
    written = [plain(words) for words in commands((repository / NOTES).read_text(), "bash")]
    published = [(environment, words) for _, environment, words in rows()]
    published = [(env, [w.replace("WEIGHTS.net", "$WEIGHT_PATH") for w in words]) for env, words in published]
    assert len(written) == 90
    assert written == published


def test_the_other_commands_of_the_notes_run(repository):
    others = [plain(words) for words in commands((repository / NOTES).read_text(), "sh") if words[0] != "export"]
    assert len(others) == 2
    for environment, words in others:
        result = run_script(repository, words[0], words[1:], environment)
        assert result.returncode == 0, result.stderr
        assert "train_single_task.py" in result.stdout or "-ft0.00" in result.stdout
