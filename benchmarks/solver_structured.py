"""dsacstar and its peers on errors as they really come: a benchmark that ours can lose.

    python -m benchmarks.solver_structured [--problems 100] [--families moved accurate] [--first_seed 0]
                                           [--peers stop default pycolmap opencv] [--out PREFIX]
    python -m benchmarks.solver_structured --final      # seeds that nobody tuned on; only for the published table

Problems: benchmarks/solver_families.py. Per family and solver: CPU time of the process (mean, conversion of inputs
excluded), median and 90 % error of the camera centre, median rotation error, and the share of failures: no answer, or
further from the truth than the family's bound. Further, of what a solver says about itself:

    refused   share of the right answers that come without success
    believed  share of the wrong answers that come with success (for pure noise every answer is wrong)
    NEES      mean over the answers that are no failures of (error^T covariance^-1 error) / 6: 1 for an honest covariance

Peers have no success flag. The verdict at the end says where ours loses: more failures than PoseLib (by its own stop
rule) plus one point, a median above 1.1 times the best peer's, less than 15 times as fast as PoseLib (own stop rule) at
60x90, right answers refused, unhelpful sigma (right: worse than without by more than 2 %; unrelated or inverse: by more
than 5 %), a covariance that is not honest, pure noise believed, and how well success and confidence tell right from wrong
over the mix of all families (AUROC). Medians below a ten-thousandth of the family's bound are rounding of the float32 input
and count as equal.
--out writes PREFIX.txt, PREFIX.csv (every answer) and PREFIX.json (every figure).
"""

from __future__ import annotations

import argparse
import csv
import json
import logging
import time
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import cv2
import numpy as np
from scipy.spatial.transform import Rotation
from scipy.stats import rankdata

import dsacstar
from benchmarks.solver_families import FAMILIES, FINAL_SEED, TUNING_SEEDS, Family
from benchmarks.solver_peers import OWN_STOP, Matches, cell_pixels, installed_peers, versions, with_sigma
from benchmarks.solver_problems import Problem
from benchmarks.solver_views import pose_error
from records.files import plain

OURS = SOLVE, FORWARD = "ours, solve", "ours, forward_rgb"
PEER_KEYS = {"stop": OWN_STOP, "default": "PoseLib", "pycolmap": "pycolmap", "opencv": "OpenCV USAC (MAGSAC)"}
BEST_RATIO, FAILURE_POINT, LEAST_SPEEDUP = 1.1, 0.01, 15.0
# Error with sigma over error without; a right sigma may find nothing to gain where the noise is even.
WORST_SIGMA = {"right": 1.02, "rough": 1.02, "unrelated": 1.05, "inverse": 1.05}
NEES_WANTED = {"white": (0.7, 1.5), "correlated": (0.0, 3.0)}
LEAST_AUROC = 0.95
# Below this share of the bound a median is rounding of float32 input, and the ratio of two of them says nothing.
ROUNDING_SHARE = 1e-4
BIG_CELLS = 5400


@dataclass(frozen=True)
class Outcome:
    """One solver's answer to one problem. None: the solver does not say, or there is no truth to compare with."""

    family: str
    solver: str
    seed: int
    ms: float
    error_m: float | None
    error_deg: float | None
    failed: bool
    success: bool | None
    confidence: float | None
    nees: float | None
    alternative_m: float | None


@dataclass(frozen=True)
class Answer:
    pose_44: np.ndarray | None
    success: bool | None = None
    confidence: float | None = None
    covariance_66: np.ndarray | None = None
    alternative_44: np.ndarray | None = None


@dataclass(frozen=True)
class Row:
    """One solver on one family; nan where there is nothing to say."""

    cells: int
    ms: float
    median_m: float
    worst_m: float
    median_deg: float
    failures: float
    refused: float
    believed: float
    nees: float
    alternative: float


def run_solve(problem: Problem, options: dsacstar.RansacOptions) -> Answer:
    mask_1hw = None if problem.mask_hw is None else problem.mask_hw[None]
    sigma_1hw = None if problem.sigma_hw is None else problem.sigma_hw[None]
    result = with_sigma(problem.coords_3hw[None], problem.intrinsics, sigma_1hw, mask=mask_1hw, options=options)[0]
    other = getattr(result, "alternative", None)
    return Answer(
        result.pose,
        result.success,
        float(getattr(result, "confidence", result.score)),
        result.covariance,
        np.asarray(getattr(other, "pose", other)) if other is not None else None,
    )


def run_forward(problem: Problem, coords_13hw: np.ndarray) -> Answer:
    pose = np.zeros((4, 4))
    focal_px, _, cx, cy = problem.intrinsics
    found = dsacstar.forward_rgb(
        coords_13hw, pose, 64, problem.threshold_px, focal_px, cx, cy, 100, 100, problem.subsampling
    )
    return Answer(pose, bool(found))


def matches_of(problem: Problem) -> Matches:
    height, width = problem.coords_3hw.shape[1:]
    used_N = np.ones(height * width, bool) if problem.mask_hw is None else problem.mask_hw.ravel()
    pixels_N2 = np.ascontiguousarray(cell_pixels(height, width, problem.subsampling)[used_N])
    points_N3 = np.ascontiguousarray(problem.coords_3hw.reshape(3, -1).T[used_N], dtype=np.float64)
    size_px = (width * problem.subsampling, height * problem.subsampling)
    return Matches(pixels_N2, points_N3, list(problem.intrinsics), size_px, problem.threshold_px)


def answer_of(solver: str, problem: Problem, peers: dict) -> tuple[Answer, float]:
    """(answer, CPU milliseconds of the solver alone)."""
    if solver == SOLVE:
        options = dsacstar.RansacOptions(threads=1, threshold_px=problem.threshold_px, subsampling=problem.subsampling)
        start = time.process_time()
        answer = run_solve(problem, options)
    elif solver == FORWARD:
        coords_3hw = (
            problem.coords_3hw
            if problem.mask_hw is None
            else np.where(problem.mask_hw, problem.coords_3hw, np.float32(np.nan))
        )
        start = time.process_time()
        answer = run_forward(problem, coords_3hw[None])
    else:
        matches = matches_of(problem)
        start = time.process_time()
        try:
            found = peers[solver](matches)
        except cv2.error:  # OpenCV raises where its own local optimisation is left with too few points.
            found = None
        answer = Answer(None) if found is None else Answer(found[0], None, found[1])
    return answer, 1e3 * (time.process_time() - start)


def normalised_error(answer: Answer, right_44: np.ndarray) -> float | None:
    """(e^T C^-1 e) / 6, e: rotation vector from estimate to truth in the camera frame, then the centre in the world."""
    if answer.covariance_66 is None or not np.isfinite(answer.covariance_66).all():
        return None
    # Not cv2.Rodrigues, which takes turns below 1e-5 radians for none.
    turn = Rotation.from_matrix(answer.pose_44[:3, :3].T @ right_44[:3, :3]).as_rotvec()
    error_6 = np.concatenate([turn, right_44[:3, 3] - answer.pose_44[:3, 3]])
    # Scaled to a unit diagonal: rotation and position have different units.
    scale_6 = np.sqrt(np.diag(answer.covariance_66))
    if not (scale_6 > 0).all():
        return None
    return float(
        error_6 / scale_6 @ np.linalg.lstsq(answer.covariance_66 / np.outer(scale_6, scale_6), error_6 / scale_6)[0] / 6
    )


def judge(name: str, family: Family, solver: str, seed: int, problem: Problem, peers: dict) -> Outcome:
    answer, ms = answer_of(solver, problem, peers)
    usable = answer.pose_44 is not None and np.isfinite(answer.pose_44).all()
    if not problem.right_poses:
        return Outcome(
            name, solver, seed, ms, None, None, answer.success is not False, answer.success, answer.confidence, None, None
        )
    if not usable:
        return Outcome(name, solver, seed, ms, np.inf, 180.0, True, answer.success, answer.confidence, None, None)
    errors = [pose_error(answer.pose_44, right) for right in problem.right_poses]
    nearest = int(np.argmin([metres for metres, _ in errors]))
    metres, degrees = errors[nearest]
    failed = metres > family.bound_m
    others = [pose for index, pose in enumerate(problem.right_poses) if index != nearest] + list(problem.other_poses)
    return Outcome(
        family=name,
        solver=solver,
        seed=seed,
        ms=ms,
        error_m=metres,
        error_deg=degrees,
        failed=failed,
        success=answer.success,
        confidence=answer.confidence,
        nees=None if failed else normalised_error(answer, problem.right_poses[nearest]),
        alternative_m=alternative_error(answer, others),
    )


def alternative_error(answer: Answer, others: list[np.ndarray]) -> float | None:
    """Metres from the reported alternative to the nearest competing pose; infinite where it is not reported."""
    if not others:
        return None
    if answer.alternative_44 is None:
        return np.inf
    return min(pose_error(answer.alternative_44, other)[0] for other in others)


def mean_or_nan(values) -> float:
    values = list(values)
    return float(np.mean(values)) if values else float("nan")


def row_of(outcomes: list[Outcome], family: Family, cells: int) -> Row:
    errors = [o.error_m for o in outcomes if o.error_m is not None]
    told = [o for o in outcomes if o.success is not None]
    return Row(
        cells=cells,
        ms=mean_or_nan(o.ms for o in outcomes),
        median_m=float(np.median(errors)) if errors else float("nan"),
        worst_m=float(np.quantile(errors, 0.9, method="higher")) if errors else float("nan"),
        median_deg=float(np.median([o.error_deg for o in outcomes if o.error_deg is not None])) if errors else float("nan"),
        failures=mean_or_nan(o.failed for o in outcomes),
        refused=mean_or_nan(not o.success for o in told if o.error_m is not None and not o.failed),
        believed=mean_or_nan(bool(o.success) for o in told if o.error_m is None or o.failed),
        nees=mean_or_nan(o.nees for o in outcomes if o.nees is not None),
        alternative=mean_or_nan(o.alternative_m < family.bound_m for o in outcomes if o.alternative_m is not None),
    )


def auroc(scores: np.ndarray, wrong: np.ndarray) -> float:
    """Probability that a right answer scores above a wrong one (ties count half); nan without both kinds."""
    if wrong.all() or not wrong.any():
        return float("nan")
    ranks = rankdata(scores)
    right = ~wrong
    return float((ranks[right].sum() - right.sum() * (right.sum() + 1) / 2) / (right.sum() * wrong.sum()))


def telling(outcomes: list[Outcome], solver: str, field: str) -> float:
    """AUROC of a solver's own word over all its answers."""
    mine = [o for o in outcomes if o.solver == solver and getattr(o, field) is not None]
    if not mine:
        return float("nan")
    wrong = np.array([o.error_m is None or o.failed for o in mine])
    return auroc(np.array([float(getattr(o, field)) for o in mine]), wrong)


def family_text(name: str, family: Family, problem: Problem, rows: dict[str, Row]) -> str:
    height, width = problem.coords_3hw.shape[1:]
    wrong = f"failure above {family.bound_m:g} m" if problem.right_poses else "no right answer"
    heads = ("CPU ms", "median m", "90 % m", "deg", "failed", "refused", "believed", "NEES", "other")
    lines = [f"\n{name}  ({height}x{width}, {problem.threshold_px:g} px, {wrong}, {family.source})"]
    lines.append(f"  {'':24}" + "".join(f"{head:>10}" for head in heads))
    for solver, row in rows.items():
        forms = (".2f", ".4g", ".4g", ".2g", ".1%", ".1%", ".1%", ".3g", ".0%")
        values = (
            row.ms,
            row.median_m,
            row.worst_m,
            row.median_deg,
            row.failures,
            row.refused,
            row.believed,
            row.nees,
            row.alternative,
        )
        cells = ("-" if np.isnan(value) else format(value, form) for value, form in zip(values, forms, strict=True))
        lines.append(f"  {solver:24}" + "".join(f"{cell:>10}" for cell in cells))
    return "\n".join(lines)


def losses_of(name: str, solver: str, table: dict[str, dict[str, Row]]) -> list[str]:
    """Where `solver` (one of ours) loses in a family, in words."""
    family, rows = FAMILIES[name], table[name]
    ours = rows[solver]
    if np.isnan(ours.median_m):
        return [f"{ours.believed:.1%} of pure noise believed"] if ours.believed > FAILURE_POINT else []
    losses = []
    best = min((row.median_m for key, row in rows.items() if key not in OURS), default=np.inf)
    if ours.median_m > max(BEST_RATIO * best, ROUNDING_SHARE * family.bound_m):
        losses.append(f"median {ours.median_m:.3g} m is {ours.median_m / best:.2f} x the best peer's {best:.3g} m")
    if OWN_STOP in rows:
        poselib = rows[OWN_STOP]
        if ours.failures > poselib.failures + FAILURE_POINT:
            losses.append(f"failures {ours.failures:.1%}, PoseLib {poselib.failures:.1%}")
        if ours.cells == BIG_CELLS and poselib.ms < LEAST_SPEEDUP * ours.ms:
            losses.append(f"{poselib.ms / ours.ms:.1f} x as fast as PoseLib ({ours.ms:.2f} ms)")
    if ours.refused > FAILURE_POINT:
        losses.append(f"{ours.refused:.1%} of the right answers refused")
    return losses if solver != SOLVE else losses + own_losses(family, ours, table)


def own_losses(family: Family, ours: Row, table: dict[str, dict[str, Row]]) -> list[str]:
    """What solve() promises beside the pose: sigma that helps, a covariance that is honest."""
    losses = []
    if family.without_sigma in table:
        ratio = ours.median_m / table[family.without_sigma][SOLVE].median_m
        if ratio > WORST_SIGMA[family.sigma_kind]:
            losses.append(f"{family.sigma_kind} sigma: {ratio:.2f} x the error without it")
    if family.residuals is not None:
        low, high = NEES_WANTED[family.residuals]
        if not low <= ours.nees <= high:
            losses.append(f"NEES {ours.nees:.3g}")
    return losses


def speedups_of(solver: str, table: dict[str, dict[str, Row]]) -> dict[str, float]:
    """PoseLib's time over ours at 60x90, over the families: geometric mean, median, least."""
    each = [
        rows[OWN_STOP].ms / rows[solver].ms
        for rows in table.values()
        if OWN_STOP in rows and rows[solver].cells == BIG_CELLS
    ]
    if not each:
        return {}
    mean = float(np.exp(np.mean(np.log(each))))
    return {"families": len(each), "mean": mean, "median": float(np.median(each)), "least": min(each)}


def verdict(table: dict[str, dict[str, Row]], outcomes: list[Outcome]) -> tuple[str, dict]:
    """(text, figures) of all families."""
    lines: list[str] = []
    figures: dict = {"losses": {}, "speedup": {}, "auroc": {}}
    for solver in OURS:
        losses = {name: losses_of(name, solver, table) for name in table}
        lost = {name: words for name, words in losses.items() if words}
        figures["losses"][solver] = lost
        lines.append(f"\nVERDICT on {solver}: {len(losses) - len(lost)} of {len(losses)} families without a loss")
        lines += [f"  {name:44} {'; '.join(words)}" for name, words in lost.items()]
        figures["speedup"][solver] = speed = speedups_of(solver, table)
        if speed:
            lines.append(
                f"  {OWN_STOP}, takes {speed['mean']:.1f} x our time over {speed['families']} families of 60x90 (geometric mean), "
                f"median {speed['median']:.1f} x, least {speed['least']:.1f} x (wanted: {LEAST_SPEEDUP:g} x)"
            )
    lines.append(f"\nAUROC over all families of an error above the bound (wanted of our confidence: {LEAST_AUROC:g})")
    for solver in dict.fromkeys(outcome.solver for outcome in outcomes):
        for said in ("success", "confidence"):
            value = telling(outcomes, solver, said)
            if not np.isnan(value):
                figures["auroc"][f"{solver}: {said}"] = value
                lines.append(f"  {solver:24} {said:12} {value:.3f}")
    return "\n".join(lines), figures


def chosen_families(words: list[str] | None) -> list[str]:
    """The families whose name contains one of the words (a whole name chooses itself alone)."""
    if not words:
        return list(FAMILIES)
    unknown = [word for word in words if not any(word in name for name in FAMILIES)]
    if unknown:
        raise ValueError(f"no family is called {unknown[0]!r}; there are: {'; '.join(FAMILIES)}")
    return [name for name in FAMILIES if any(name == word if word in FAMILIES else word in name for word in words)]


def chosen_peers(keys: list[str]) -> dict:
    installed = installed_peers()
    return {PEER_KEYS[key]: installed[PEER_KEYS[key]] for key in PEER_KEYS if key in keys and PEER_KEYS[key] in installed}


def write(prefix: Path, text: str, outcomes: list[Outcome], figures: dict) -> None:
    prefix.parent.mkdir(parents=True, exist_ok=True)
    prefix.with_suffix(".txt").write_text(text + "\n", encoding="utf-8")
    prefix.with_suffix(".json").write_text(json.dumps(plain(figures), indent=1, allow_nan=False) + "\n", encoding="utf-8")
    with prefix.with_suffix(".csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Outcome)])
        writer.writeheader()
        writer.writerows(asdict(outcome) for outcome in outcomes)


def parsed(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=int, default=100, help="per family")
    parser.add_argument("--families", nargs="+", help="words of their names; default: all")
    parser.add_argument("--first_seed", type=int, default=0, help=f"for tuning, 0 to {TUNING_SEEDS[-1]}")
    parser.add_argument("--final", action="store_true", help=f"the seeds from {FINAL_SEED}, which tuning never sees")
    parser.add_argument("--peers", nargs="*", choices=list(PEER_KEYS), default=list(PEER_KEYS))
    parser.add_argument("--out", type=Path, help="prefix of the .txt, .csv and .json to write")
    chosen = parser.parse_args(arguments)
    if chosen.problems < 1:
        parser.error(f"--problems must be at least 1, not {chosen.problems}")
    if chosen.final and chosen.first_seed:
        parser.error("--final has its own seeds; leave --first_seed out")
    first_seed = FINAL_SEED if chosen.final else chosen.first_seed
    chosen.seeds = range(first_seed, first_seed + chosen.problems)
    if not chosen.final and (chosen.seeds[0] not in TUNING_SEEDS or chosen.seeds[-1] not in TUNING_SEEDS):
        parser.error(f"tuning seeds are 0 to {TUNING_SEEDS[-1]}, not {chosen.seeds[0]} to {chosen.seeds[-1]}")
    try:
        chosen.families = chosen_families(chosen.families)
    except ValueError as error:
        parser.error(str(error))
    return chosen


def main() -> None:
    chosen = parsed()
    cv2.setNumThreads(1)
    logging.getLogger("dsacstar").setLevel(logging.ERROR)  # a warning for every pose that is refused
    peers = chosen_peers(chosen.peers)
    seeds = chosen.seeds
    parts = [f"{versions()}; {len(seeds)} problems a family, seeds {seeds[0]} to {seeds[-1]}"]
    print(parts[0], flush=True)
    table: dict[str, dict[str, Row]] = {}
    outcomes: list[Outcome] = []
    for name in chosen.families:
        family, problems = FAMILIES[name], [FAMILIES[name].make(seed) for seed in seeds]
        # Peers have no word for "no pose", so pure noise says nothing about them; nor do they know sigma, so what they
        # answered without it stands.
        known = table.get(family.without_sigma, {}) if family.without_sigma else {}
        solvers = (*OURS, *(peers if problems[0].right_poses else ()))
        table[name] = {}
        for solver in solvers:
            if solver in peers and solver in known:
                table[name][solver] = known[solver]
                continue
            answers = [
                judge(name, family, solver, seed, problem, peers) for seed, problem in zip(seeds, problems, strict=True)
            ]
            outcomes += answers
            table[name][solver] = row_of(answers, family, problems[0].coords_3hw[0].size)
        parts.append(family_text(name, family, problems[0], table[name]))
        print(parts[-1], flush=True)
    text, figures = verdict(table, outcomes)
    print(text)
    if chosen.out:
        figures["families"] = {name: {solver: asdict(row) for solver, row in rows.items()} for name, rows in table.items()}
        write(
            chosen.out,
            "\n".join([*parts, text]),
            outcomes,
            {"versions": versions(), "seeds": [seeds[0], seeds[-1]], **figures},
        )


if __name__ == "__main__":
    main()
