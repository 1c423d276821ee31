import argparse
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from records.options import (
    add_options,
    between,
    check,
    deciding,
    from_record,
    increasing_positive,
    option,
    options_from,
    positive,
)


@dataclass(frozen=True)
class Wind:
    speed: float = option(5.0, flags=("-w",), check=between(0, 30), help="m/s")
    gusts: tuple[float, float] = option((0.5, 2.0), check=increasing_positive, help="factor")


@dataclass(frozen=True)
class Flight:
    scene: str = option(positional=True, help="scene")
    task: str = option(choices=("map", "film"), lower=True, help="what for", group="plan")
    height: float = option(50.0, check=positive, help="metres")
    photos: int | None = option(None, check=positive, help="how many")
    tags: tuple[str, ...] = option((), help="labels")
    place: Path | None = option(None, decides=False, help="folder")
    fast: bool = option(False, help="50 % faster")
    wind: Wind = field(default_factory=Wind)


def parse(*words):
    parser = argparse.ArgumentParser()
    add_options(parser, Flight)
    return options_from(Flight, parser.parse_args(words))


def test_defaults_and_values():
    assert parse("field", "--task", "MAP") == Flight("field", "map")
    full = parse(
        "field",
        "--task",
        "film",
        "--height",
        "12",
        "--photos",
        "3",
        "--tags",
        "a",
        "b",
        "--place",
        "x",
        "--fast",
        "-w",
        "7",
        "--gusts",
        "1",
        "1.5",
    )
    assert full == Flight("field", "film", 12.0, 3, ("a", "b"), Path("x"), True, Wind(7.0, (1.0, 1.5)))


@pytest.mark.parametrize(
    "words, message",
    [
        (["--task", "war"], r"unknown --task 'war'; choose from \['film', 'map'\]"),
        (["--task", "map", "--height", "0"], "--height must be positive, got 0"),
        (["--task", "map", "--height", "nan"], "--height must be positive, got nan"),
        (["--task", "map", "--photos", "-2"], "--photos must be positive, got -2"),
        (["--task", "map", "-w", "31"], r"--speed must lie in \[0, 30\], got 31"),
        (["--task", "map", "--gusts", "2", "1"], "--gusts must be two increasing positive numbers, got 2 1"),
    ],
)
def test_refusals_name_flag_and_value(words, message):
    with pytest.raises(ValueError, match=message):
        parse("field", *words)


def test_required_flags_and_wrong_types_are_argparses(capsys):
    with pytest.raises(SystemExit):
        parse("field")
    assert "--task" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        parse("field", "--task", "map", "--photos", "many")
    assert "--photos" in capsys.readouterr().err


def test_only_what_decides_the_result_is_kept():
    kept = deciding(parse("field", "--task", "map", "--place", "x"))
    assert kept == {
        "scene": "field",
        "task": "map",
        "height": 50.0,
        "photos": None,
        "tags": (),
        "fast": False,
        "speed": 5.0,
        "gusts": (0.5, 2.0),
    }


def test_help_shows_defaults_choices_and_percent_signs(capsys):
    with pytest.raises(SystemExit):
        parse("-h")
    text = capsys.readouterr().out
    assert "film, map" in text and "(default 50)" in text and "50 % faster" in text and "plan:" in text


def test_checks_reach_nested_options():
    with pytest.raises(ValueError, match="--speed"):
        check(Flight("field", "map", wind=Wind(99.0)))


def test_from_record():
    assert from_record(Wind, {"speed": 3.0, "gusts": [1.0, 2.0]}, "wind") == Wind(3.0, (1.0, 2.0))
    with pytest.raises(ValueError, match=r"wind: unknown fields \['x'\]"):
        from_record(Wind, {"x": 1}, "wind")
    with pytest.raises(ValueError, match=r"missing fields \['scene'\]"):
        from_record(Flight, {"task": "map"}, "flight")
