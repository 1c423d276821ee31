"""One localisation from options to files: the work of `localize.py`."""

from __future__ import annotations

import itertools
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from tqdm import tqdm

import dsacstar
from datagen.scene import GeoScene
from datagen.vertical import UNITS
from localization.answer import VERDICTS, Answer
from localization.forward import BATCH_SIZE
from localization.geodata import Geodata
from localization.intrinsics import Intrinsics
from localization.localizer import Localizer
from localization.photos import Photo, Source, find_sources, frame_count, photos_of
from localization.priors import PhotoFacts, PriorOptions, priors_of, read_facts
from localization.recorded_map import recorded_map
from localization.refinement import REFINE_HELP, REFINEMENTS, WORKING_HEIGHTS
from localization.solving import SolverOptions
from localization.writing import write_answers
from records.files import check_writable
from records.options import between, option
from runs.device import PRECISIONS
from runs.record import record_of

logger = logging.getLogger(__name__)

PriorReader = Callable[[Photo], dsacstar.Priors | None]


@dataclass(frozen=True)
class LocalizeOptions:
    """One localisation; the fields are the flags."""

    network_in: Path = option(metavar="WEIGHTS", help="weights of a coord network, with their record")
    image: Path = option(metavar="PHOTO|FOLDER|VIDEO", help="what to localise; a folder with all its sub-folders")
    intrinsics: tuple[str, ...] = option(
        ("exif",),
        help="exif; one number (f) or four (fx fy cx cy), px; or a file: such numbers, a JSON with width, height, "
        "focal_length_px and distortion, a COLMAP model or its cameras.txt",
    )
    every: int = option(1, check=between(1, 10**9), help="every so manieth frame of a video")
    surface: tuple[Path, ...] = option(
        (),
        group="refinement by the map",
        metavar="DSM",
        help="surface model, to refine by; default: the one recorded with the weights, where it is still there, unchanged",
    )
    ortho: tuple[Path, ...] = option((), metavar="ORTHO", help="orthophoto, with --surface")
    height_unit: str | None = option(None, choices=UNITS, help="of the surface model's heights, whatever its file says")
    refine: str | None = option(None, choices=REFINEMENTS, help=REFINE_HELP)
    refine_height: int = option(
        WORKING_HEIGHTS[0], check=between(64, 4096), help="shorter side at which photo and map are compared, px"
    )
    solver: SolverOptions = field(default_factory=SolverOptions)
    prior: PriorOptions = field(default_factory=PriorOptions)
    output_dir: Path = option(Path("localized"), group="output", metavar="DIR", help="answers.json, answers.csv, poses/")
    scene_dir: Path | None = option(
        None, metavar="DIR", help="folder of the scene, for weights without a record (a published scene: its name)"
    )
    precision: str | None = option(None, choices=PRECISIONS, help="of the network's arithmetic; default: as in training")
    device: str = option("auto", help="auto, cpu, cuda, cuda:1, ...")

    @property
    def refines(self) -> bool:
        """Whether poses are refined.

        Raises:
            ValueError: the flags contradict each other.
        """
        if bool(self.surface) != bool(self.ortho):
            raise ValueError("--surface and --ortho go together")
        if self.refine not in (None, "off") and not self.surface:
            raise ValueError(
                f"--refine {self.refine} needs the map: --surface and --ortho; the weights' record leads to none"
            )
        return bool(self.surface) and self.refine != "off"


@dataclass(frozen=True)
class Localized:
    """answers: in the order of the photos. skipped: what could not be read, with the reason."""

    answers: list[Answer]
    skipped: dict[str, str]


def with_recorded_map(options: LocalizeOptions) -> LocalizeOptions:
    """The options with the geodata that are recorded with the weights, where none are named; one line says which.

    Raises:
        ValueError: the record is damaged, or --height_unit is there without a surface model.
    """
    found = None
    if not options.surface and not options.ortho:
        found = recorded_map(record_of(options.network_in), options.scene_dir)
    if found is not None:
        unit = options.height_unit or found.height_unit
        options = replace(options, surface=found.surface, ortho=found.ortho, height_unit=unit)
    if options.height_unit is not None and not options.surface:
        raise ValueError("--height_unit is of the heights of --surface")
    return options


def localize(options: LocalizeOptions) -> tuple[Localized, Localizer]:
    """Localises what the options name and writes the answers.

    Args:
        options: completed by `with_recorded_map` where geodata are wanted that are only recorded.

    Raises:
        ValueError, OSError: bad options, weights, geodata or folder, or no photo that could be read; a message for the user.
    """
    refines = options.refines
    if options.prior.wanted and options.solver.solver == "published":
        raise ValueError("--solver published takes no priors")
    sources = find_sources(options.image)
    _check_writable(options.output_dir)
    localizer = Localizer.from_weights(
        options.network_in,
        surface=options.surface if refines else None,
        ortho=options.ortho if refines else None,
        height_unit=options.height_unit,
        recorded=False,
        solver=options.solver,
        refine=options.refine if refines and options.refine else "ncc",
        refine_height=options.refine_height,
        device=options.device,
        precision=options.precision,
        scene_dir=options.scene_dir,
    )
    given = localizer.intrinsics(options.intrinsics)
    logger.info("%d file%s, intrinsics: %s", len(sources), "" if len(sources) == 1 else "s", given.description)
    localized = localize_sources(localizer, sources, given, options.every, _reader_of_priors(options, localizer, sources))
    if not localized.answers:
        raise ValueError(f"no photo could be localised: {'; '.join(list(localized.skipped.values())[:3])}")
    write_answers(localized.answers, localizer.frame, localized.skipped, options.output_dir)
    logger.info("%s -> %s", summary(localized, refines), options.output_dir)
    return localized, localizer


def scene_of(options: LocalizeOptions, localizer: Localizer) -> GeoScene | None:
    """The geodata that were named, whether poses are refined by them or not; None where none were."""
    if localizer.geodata is not None:
        return localizer.geodata.scene
    if not options.surface:
        return None
    return Geodata.open(options.surface, options.ortho, localizer.frame, options.height_unit).scene


def _reader_of_priors(options: LocalizeOptions, localizer: Localizer, sources: Sequence[Source]) -> PriorReader | None:
    """What finds the priors of a photo in its file; None when none are wanted."""
    if not options.prior.wanted:
        return None
    paths = {source.name: source.path for source in sources if not source.is_video}
    scene = scene_of(options, localizer) if options.prior.height_above_ground else None
    priors_of([PhotoFacts()], localizer.frame, options.prior, scene)  # says now what is missing for any photo

    def read(photo: Photo) -> dsacstar.Priors | None:
        facts = read_facts(paths[photo.name]) if photo.name in paths else PhotoFacts()
        return priors_of([facts], localizer.frame, options.prior, scene)

    return read


def localize_sources(
    localizer: Localizer,
    sources: Sequence[Source],
    given: Intrinsics,
    every: int = 1,
    prior_of: PriorReader | None = None,
) -> Localized:
    """Localises photos and videos with a bar; what cannot be read is said and passed over.

    Args:
        prior_of: what is known of a photo beforehand.
    """
    skipped: dict[str, str] = {}
    answers: list[Answer] = []
    with_prior = 0
    photos = _readable(sources, given, every, skipped)
    total = sum(frame_count(source, every) for source in sources)
    with tqdm(total=total, desc="localize", unit="photo", dynamic_ncols=True, disable=total < 2) as bar:
        while batch := list(itertools.islice(photos, BATCH_SIZE)):
            priors = [None if prior_of is None else prior_of(photo) for photo in batch]
            with_prior += sum(prior is not None for prior in priors)
            answers += localizer.localize(batch, priors)
            bar.update(len(batch))
    if prior_of is not None:
        logger.info("priors: the files of %d of %d photos say what was asked for", with_prior, len(answers))
    return Localized(answers, skipped)


def _readable(sources: Sequence[Source], given: Intrinsics, every: int, skipped: dict[str, str]) -> Iterator[Photo]:
    for source in sources:
        try:
            yield from photos_of(source, given, every)
        except (ValueError, OSError) as error:
            skipped[source.name] = str(error)
            logger.warning("skipped: %s", error)


def summary(localized: Localized, refines: bool) -> str:
    """One line: how many photos got which verdict, and how many the map accepted."""
    verdicts = Counter(answer.verdict for answer in localized.answers)
    count = len(localized.answers)
    found = ", ".join(f"{verdicts[v]} {v}" for v in VERDICTS if verdicts[v])
    parts = [f"{count} photo{'' if count == 1 else 's'}: {found}"]
    if refines:
        parts.append(f"{sum(answer.stage == 'refined' for answer in localized.answers)} refined by the map")
    if localized.skipped:
        skipped = len(localized.skipped)
        parts.append(f"{skipped} file{'' if skipped == 1 else 's'} skipped")
    return "; ".join(parts)


def _check_writable(folder: Path) -> None:
    check_writable(folder, "answers")
    if (folder / "poses").is_dir() and (folder / "calibration").is_dir():
        raise ValueError(f"{folder} is a section of a data set: answers would replace its true poses")
