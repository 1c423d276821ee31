"""The exit status of commands."""

from __future__ import annotations

import pytest

from records.command import FAILURES, exit_status


def raising(error: BaseException):
    def work() -> None:
        raise error

    return work


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (ValueError("no photo in x"), 2, "error: no photo in x\n"),
        (FileNotFoundError(2, "No such file or directory", "a/b"), 2, "error: a/b: No such file or directory\n"),
        (OSError("bad header"), 2, "error: bad header\n"),
        (KeyboardInterrupt(), 130, "interrupted; kept\n"),
    ],
)
def test_what_may_go_wrong_is_one_line(error, status, said, capsys):
    assert exit_status(raising(error), interrupted="interrupted; kept") == status
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", said)


def test_status_of_the_work():
    assert exit_status(lambda: None) == 0
    assert exit_status(lambda: 1) == 1


def test_faults_of_the_program_keep_their_traceback(capsys):
    with pytest.raises(RuntimeError, match="a fault"):
        exit_status(raising(RuntimeError("a fault")))
    with pytest.raises(KeyError):
        exit_status(raising(KeyError("x")), expected=FAILURES)
    assert exit_status(raising(RuntimeError("a\nb")), expected=FAILURES, explain=lambda e: str(e)[-1]) == 2
    assert capsys.readouterr().err == "error: b\n"
