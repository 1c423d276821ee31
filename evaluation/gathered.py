"""What the images of a section give, gathered for the files that are written of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from dataloader.section import SectionDataset
from evaluation.coord import CoordFigures, CoordResult
from evaluation.dense import DenseFigures
from evaluation.measures import DenseResult
from evaluation.options import EvaluationOptions
from evaluation.pictures import draw_prediction
from evaluation.reports import save_arrays, section_file
from evaluation.task_table import EVALUATIONS
from evaluation.trust import TrustFigures
from localization.calibration import calibration_of


@dataclass(frozen=True)
class Gathered:
    """What the images of a section give for one weights file, one after the other.

    Attributes:
        task: of the network.
        figures: for the published report.
        trust, refined_trust: for the figures with intervals, of coarse and refined poses; None of tasks without poses.
        photos: the files that are still to come.
        pred_folder, plot_folder: for what is wanted of every image; None where nothing is.
        with_section: file names say the section: in a group of sections the same stem occurs more than once.
        kept: all results, where pictures of the whole need them.
    """

    task: str
    figures: CoordFigures | DenseFigures
    trust: TrustFigures | None
    refined_trust: TrustFigures | None
    photos: Iterator[Path]
    pred_folder: Path | None
    plot_folder: Path | None
    with_section: bool
    kept: list[CoordResult | DenseResult] = field(default_factory=list)

    @classmethod
    def of(cls, weights: Path, section: str, dataset: SectionDataset, options: EvaluationOptions) -> Gathered:
        """Nothing yet, of a weights file on a section."""
        task, solves_poses = options.task, EVALUATIONS[options.task].measure is None

        def trust(stage: str) -> TrustFigures | None:
            """With the calibration that is obeyed; without one where it is being learned."""
            return (
                TrustFigures(None if options.calibrate else calibration_of(weights, stage), stage) if solves_poses else None
            )

        return cls(
            task=task,
            figures=CoordFigures() if solves_poses else DenseFigures(task),
            trust=trust("coarse"),
            refined_trust=trust("refined"),
            photos=iter([files.image for files in dataset.files]),
            pred_folder=_folder(weights.parent / f"{task}_pred_{weights.name}_{section}") if options.save_pred else None,
            plot_folder=_folder(section_file(weights, section, f"{task}_plots")) if options.plot else None,
            with_section=len(set(dataset.section_of)) > 1,
        )

    def add(self, result: CoordResult | DenseResult, *, keep: bool) -> None:
        """The next image's result, in the order of the section."""
        self.figures.add(result)
        photo = next(self.photos)
        if self.trust is not None:
            self.trust.add(result, photo)
            self.refined_trust.add(result, photo)
        name = result.stem.replace("/", "_") if self.with_section else result.stem.rpartition("/")[2]
        if self.pred_folder is not None:
            save_arrays(result.arrays(self.task), self.pred_folder / f"{name}.npz")
        if self.plot_folder is not None:
            draw_prediction(result, EVALUATIONS[self.task].draw, self.plot_folder / f"{name}.png")
        if keep:
            self.kept.append(result)


def _folder(path: Path) -> Path:
    path.mkdir(exist_ok=True)
    return path
