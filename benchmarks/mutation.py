#!/usr/bin/env python3
"""Do the tests notice a wrong line? `python benchmarks/mutation.py --rooms geometry loss --sample 200 --seed 0`.

Breaks one place of the code at a time, as Cosmic Ray's operators do (another operator, number, comparison, truth value, a
loop without iterations, ...) or by leaving out one statement, and runs the tests that reach that line, quickest first, until
one fails. Needs `pip install cosmic-ray coverage`; the tests must pass before.

The sample is drawn over places, not over mutants: one place has up to eleven, and `a - b` for `a + b` shows as much as
`a ** b`. A mutant counts as killed when a test fails, when the module can no longer be imported, or when the tests take
three times as long as they should. Lines that no test reaches count as survived. Mutants that cannot be told from the
original by any result are listed in benchmarks/mutation_equivalent.json with the reason; they are taken off the sample, and
the score without this subtraction is printed too.

Source of the operators: Cosmic Ray (Bingham & Smallshire), https://cosmic-ray.readthedocs.io.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import difflib
import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from queue import SimpleQueue

ROOT = Path(__file__).resolve().parents[1]
EQUIVALENT = ROOT / "benchmarks" / "mutation_equivalent.json"
# What the tests of a room's consumers say of it counts too, after its own.
TESTS_OF = {
    "geometry": ("geometry", "loss", "dataloader"),
    "loss": ("loss",),
    "networks": ("networks",),
    "dataloader": ("dataloader",),
    "training": ("training",),
    "evaluation": ("evaluation",),
    "records": ("records", "runs"),
    "runs": ("runs", "training", "evaluation"),
}
# Rules of all rooms that no line of theirs is run for.
_RULES = (
    "tests/test_repository.py::test_dataclasses_are_frozen",
    "tests/test_repository.py::test_no_sequence_is_cut_off_without_a_word",
)
# One mutant's tests may take this long by their measured times; longer ones are left out from the end of the queue.
_BUDGET_S = 30.0
_PRELOADED = ["torch", "numpy", "cv2", "scipy", "pandas", "matplotlib", "pytest", "torch.utils.tensorboard"]


@dataclass(frozen=True)
class Mutant:
    """One broken line.

    Attributes:
        path: the file, relative to the repository.
        line: where, from 1.
        operator: Cosmic Ray's name of the kind, or statement/Remove.
        before, after: the changed statements in ast.unparse's spelling, so that formatting does not matter.
        outcome: killed, timeout, survived, unreached, equivalent; by: the test that noticed, or the reason.
    """

    path: str
    line: int
    operator: str
    before: str
    after: str
    source: str
    outcome: str = ""
    by: str = ""

    @property
    def key(self) -> tuple[str, str, str]:
        return self.path, self.before, self.after


# --- which mutants there are -----------------------------------------------------------------------------------------


def mutants_of(path: str) -> dict[tuple, list[Mutant]]:
    """All mutants of a file by the place they break."""
    import cosmic_ray.plugins
    from cosmic_ray.ast import ast_nodes, get_ast
    from cosmic_ray.mutating import mutate_code

    source = (ROOT / path).read_text(encoding="utf-8")
    original, text = _meaning(source), source.splitlines()
    operators = {name: cosmic_ray.plugins.get_operator(name) for name in cosmic_ray.plugins.operator_names()}
    operators = {name: kind() for name, kind in operators.items() if not kind.arguments()}
    operators["statement/Remove"] = _remove_statement()
    nodes = list(ast_nodes(get_ast(source)))
    found: dict[tuple, list[Mutant]] = defaultdict(list)
    for name, operator in operators.items():
        places = [start for node in nodes for start, _ in operator.mutation_positions(node)]
        for occurrence, place in enumerate(places):
            if text[place[0] - 1][place[1] :].startswith(("*,", "/,")):
                continue  # the marker of keyword-only parameters, no product
            try:
                mutated = mutate_code(source, operator, occurrence)
            except AttributeError:
                continue  # Cosmic Ray's exception operator knows no dotted names
            meaning = _meaning(mutated) if mutated is not None else None
            if meaning is None or meaning == original:
                continue  # no Python, or only an annotation or a docstring changed
            lines = list(difflib.ndiff(original, meaning))
            before, after = ("\n".join(line[2:].strip() for line in lines if line[0] == sign) for sign in "-+")
            family = name.rsplit("/", 1)[1].split("_")[0]
            found[path, place, family].append(Mutant(path, place[0], name, before, after, mutated))
    return found


def _remove_statement():
    """An operator of Cosmic Ray's kind: leaves out a call, an augmented assignment, or one to an attribute or item."""
    import parso
    from cosmic_ray.operators.operator import Operator

    class RemoveStatement(Operator):
        def mutation_positions(self, node):
            if node.type != "simple_stmt":
                return
            statement = node.children[0]
            if statement.type in ("atom_expr", "power"):
                yield statement.start_pos, statement.end_pos
            elif statement.type == "expr_stmt":
                target, assignment = statement.children[0], statement.children[1]
                augmented = assignment.type == "operator" and assignment.value != "="
                if augmented or (target.type in ("atom_expr", "power") and assignment.type == "operator"):
                    yield statement.start_pos, statement.end_pos

        def mutate(self, node, index):
            prefix = node.get_first_leaf().prefix
            node.children[0] = parso.parse(f"{prefix}pass")
            return node

        @classmethod
        def examples(cls):
            return ()

    return RemoveStatement()


def _meaning(source: str) -> list[str] | None:
    """Lines of the code without docstrings and annotations; None when it is not Python."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return None
    for node in ast.walk(tree):
        if isinstance(node, ast.arg):
            node.annotation = None
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            node.returns = None
        elif isinstance(node, ast.AnnAssign):
            node.annotation = ast.Name("object")
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [statement for statement in body if not _says_nothing(statement)] or [ast.Pass()]
    return ast.unparse(tree).splitlines()


def _says_nothing(statement: ast.stmt) -> bool:
    constant = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
    typing = isinstance(statement, ast.If) and "TYPE_CHECKING" in ast.unparse(statement.test)
    return constant or typing


def draw(rooms: list[str], sample: int, seed: int) -> list[Mutant]:
    """`sample` mutants, one per place while there are places; the same for the same code and seed."""
    places: dict[tuple, list[Mutant]] = {}
    for room in rooms:
        for path in sorted((ROOT / room).rglob("*.py")):
            places.update(mutants_of(path.relative_to(ROOT).as_posix()))
    rng = random.Random(seed)
    shuffled = [rng.sample(places[place], len(places[place])) for place in sorted(places)]
    rng.shuffle(shuffled)
    drawn: list[Mutant] = []
    while len(drawn) < sample and shuffled:
        drawn += [mutants.pop() for mutants in shuffled][: sample - len(drawn)]
        shuffled = [mutants for mutants in shuffled if mutants]
    print(f"{sum(map(len, places.values()))} mutants at {len(places)} places of {', '.join(rooms)}; {len(drawn)} drawn")
    return drawn


# --- running tests in a fork of a process that has the libraries loaded ------------------------------------------------


class _Recorder:
    """A pytest plugin: which test failed first, how long each took, and, with coverage, which lines it reached."""

    def __init__(self, coverage=None):
        self.coverage, self.seconds, self.failed = coverage, {}, ""

    def pytest_runtest_logstart(self, nodeid, location):
        self.started = time.perf_counter()
        if self.coverage is not None:
            self.coverage.switch_context(nodeid)

    def pytest_runtest_logfinish(self, nodeid, location):
        self.seconds[nodeid] = time.perf_counter() - self.started

    def pytest_runtest_logreport(self, report):
        if report.failed and not self.failed:
            self.failed = report.nodeid


def _run_pytest(folder: str, tests: list[str], answer, rooms: list[str] | None) -> None:
    """Child process: runs tests in a copy of the repository. `rooms`: measure what the tests reach there."""
    os.setsid()
    os.chdir(folder)
    multiprocessing.set_start_method(None, force=True)  # the tests' own loaders start as they do everywhere
    sys.dont_write_bytecode = True
    sys.path[:] = [folder, *(entry for entry in sys.path if entry not in ("", str(ROOT), str(ROOT / "benchmarks")))]
    silence = os.open(os.devnull if rooms is None else os.path.join(folder, "baseline.txt"), os.O_WRONLY | os.O_CREAT)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    import pytest

    coverage = None
    if rooms is not None:
        from coverage import Coverage

        coverage = Coverage(data_file=None, source=rooms, messages=False)
        coverage.start()
    recorder = _Recorder(coverage)
    status = int(pytest.main([*tests, "-x", "-q", "-p", "no:cacheprovider", "--tb=short"], plugins=[recorder]))
    reached = {}
    if coverage is not None:
        coverage.stop()
        data = coverage.get_data()
        for path in data.measured_files():
            reached[os.path.relpath(path, folder)] = data.contexts_by_lineno(path)
    answer.send((status, recorder.failed, recorder.seconds, reached))
    os._exit(0)


def run_tests(folder: Path, tests: list[str], limit_s: float, rooms: list[str] | None = None) -> tuple | None:
    """(pytest's status, first failing test, seconds per test, contexts per line), or None past the limit."""
    context = multiprocessing.get_context("forkserver")
    receiving, sending = context.Pipe(duplex=False)
    process = context.Process(target=_run_pytest, args=(str(folder), tests, sending, rooms))
    process.start()
    sending.close()
    try:
        if not receiving.poll(limit_s):
            return None
        return receiving.recv()
    except EOFError:
        return 3, "the test process died", {}, {}
    finally:
        receiving.close()
        # Whatever the tests started goes with them.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.join()


@contextlib.contextmanager
def copies(count: int) -> Iterator[list[Path]]:
    """Copies of the working tree, tracked and new files alike."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    with tempfile.TemporaryDirectory(prefix="mutation-") as top:
        folders = [Path(top) / f"copy{index}" for index in range(count)]
        for folder in folders:
            for name in filter(None, listed.split("\0")):
                if (ROOT / name).is_file():
                    (folder / name).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy2(ROOT / name, folder / name)
        yield folders


# --- the campaign --------------------------------------------------------------------------------------------------------


def baseline(folder: Path, rooms: list[str]) -> tuple[dict[str, float], dict[str, dict[int, list[str]]]]:
    """Seconds of every test and the tests that reach every line of the rooms; exits when a test fails."""
    tests = [f"tests/{test}" for test in dict.fromkeys(test for room in rooms for test in TESTS_OF[room])]
    result = run_tests(folder, [*_RULES, *(test for test in tests if (folder / test).is_dir())], 3600, rooms)
    if result is None or result[0] != 0:
        sys.exit((folder / "baseline.txt").read_text()[-3000:] + "\nerror: the tests fail without any mutation")
    return result[2], result[3]


def tests_for(mutant: Mutant, seconds: dict[str, float], reached: dict[str, dict[int, list[str]]]) -> list[str]:
    """The tests that reach the mutant's line, quickest first; all, where the line runs at import."""
    contexts = reached.get(mutant.path, {}).get(mutant.line, [])
    first_line = reached.get(mutant.path, {})
    if not contexts:
        # A line in the middle of a statement: coverage counts the statement's first line.
        earlier = [line for line in first_line if line < mutant.line]
        contexts = first_line[max(earlier)] if earlier else []
    names = [name for name in contexts if name]
    if "" in contexts and not names:
        names = list(seconds)
    chosen, total = [rule for rule in _RULES if rule in seconds], 0.0
    room = f"tests/{mutant.path.split('/')[0]}/"
    # The room's own tests first, then by time.
    for name in sorted(
        names, key=lambda name: (seconds.get(name, 0.0) > 1.0, not name.startswith(room), seconds.get(name, 0.0))
    ):
        total += seconds.get(name, 0.0)
        if name not in chosen and (total < _BUDGET_S or len(chosen) <= len(_RULES)):
            chosen.append(name)
    return chosen


def judge(mutant: Mutant, folder: Path, seconds: dict[str, float], reached: dict) -> Mutant:
    tests = tests_for(mutant, seconds, reached)
    if not tests:
        return replace(mutant, outcome="unreached")
    target = folder / mutant.path
    target.write_text(mutant.source, encoding="utf-8")
    try:
        limit_s = 20 + 3 * sum(seconds[test] for test in tests)
        # A busy machine is no endless loop: what ran out of time gets a second chance.
        result = run_tests(folder, tests, limit_s) or run_tests(folder, tests, 3 * limit_s)
    finally:
        shutil.copy2(ROOT / mutant.path, target)
    if result is None:
        return replace(mutant, outcome="timeout")
    status, failed, _, _ = result
    return replace(mutant, outcome="survived" if status == 0 else "killed", by=failed or "import" if status else "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rooms", nargs="+", choices=list(TESTS_OF), default=["geometry", "loss", "networks", "dataloader",
                                                                               "training", "evaluation"])  # fmt: skip
    parser.add_argument("--sample", type=int, default=200, help="mutants (default %(default)s); 0: all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--report", type=Path, help="JSON file for the results")
    args = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    # Killed tests leave semaphores behind, which the tracker removes and tells of.
    os.environ["PYTHONWARNINGS"] = "ignore:resource_tracker"
    os.environ.setdefault("BRIGHTON_BEACH_DIR", str(ROOT.parent / "shared" / "data" / "brighton_beach"))
    start = time.monotonic()
    drawn = draw(args.rooms, args.sample or 10**9, args.seed)
    known = {
        (entry["path"], entry["before"], entry["after"]): entry["reason"] for entry in json.loads(EQUIVALENT.read_text())
    }
    equivalent = [replace(m, outcome="equivalent", by=known[m.key]) for m in drawn if m.key in known]
    multiprocessing.get_context("forkserver").set_forkserver_preload(_PRELOADED)
    with copies(args.jobs) as folders:
        seconds, reached = baseline(folders[0], args.rooms)
        print(f"baseline: {len(seconds)} tests, {sum(seconds.values()):.0f} s", flush=True)
        free: SimpleQueue[Path] = SimpleQueue()
        for folder in folders:
            free.put(folder)

        def work(mutant: Mutant) -> Mutant:
            folder = free.get()
            try:
                judged = judge(mutant, folder, seconds, reached)
            finally:
                free.put(folder)
            if judged.outcome in ("survived", "unreached"):
                print(described(judged), flush=True)
            return judged

        with ThreadPoolExecutor(args.jobs) as pool:
            judged = list(pool.map(work, [m for m in drawn if m.key not in known]))
    report(judged + equivalent, args, time.monotonic() - start)


def described(mutant: Mutant) -> str:
    lines = [f"{mutant.outcome}: {mutant.path}:{mutant.line} ({mutant.operator})"]
    lines += [f"  - {line}" for line in mutant.before.splitlines()] + [f"  + {line}" for line in mutant.after.splitlines()]
    return "\n".join(lines)


def report(mutants: list[Mutant], args: argparse.Namespace, wall_s: float) -> None:
    """Prints the score per room and writes the JSON report."""
    table = {}
    for room in [*args.rooms, "all"]:
        counts = Counter(m.outcome for m in mutants if room in ("all", m.path.split("/")[0]))
        killed, total = counts["killed"] + counts["timeout"], sum(counts.values())
        told_apart = total - counts["equivalent"]
        table[room] = {**counts, "sampled": total, "score": killed / max(1, told_apart), "raw_score": killed / max(1, total)}
        print(f"{room:12s} {killed:4d} of {told_apart:4d} killed: {table[room]['score']:6.1%}   "
              f"({counts['timeout']} by timeout, {counts['survived']} survived, {counts['unreached']} unreached, "
              f"{counts['equivalent']} equivalent: {table[room]['raw_score']:.1%} with them)")  # fmt: skip
    print(f"seed {args.seed}, {wall_s:.0f} s with {args.jobs} jobs")
    if args.report:
        listed = [{k: v for k, v in asdict(m).items() if k != "source"} for m in mutants]
        args.report.write_text(json.dumps({"seed": args.seed, "rooms": table, "mutants": listed}, indent=1) + "\n")


if __name__ == "__main__":
    main()
