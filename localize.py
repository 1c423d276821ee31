#!/usr/bin/env python3
"""Where photos were taken: `python localize.py --network_in WEIGHTS --image PHOTO|FOLDER|VIDEO [--surface --ortho]`."""

import argparse
import logging
import sys

from threads import configure_threads


def main() -> int:
    configure_threads()  # before numpy and torch are imported
    from exports.localized import OutputOptions, check_output, photo_of, write_outputs
    from localization.command import LocalizeOptions, localize, scene_of, with_recorded_map
    from localization.photos import find_sources
    from records.command import FAILURES, exit_status
    from records.options import add_options, options_from
    from runs.messages import explained

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description=__doc__)
    add_options(parser, LocalizeOptions)
    add_options(parser, OutputOptions)
    args = parser.parse_args()

    def work() -> None:
        options, wanted = options_from(LocalizeOptions, args), options_from(OutputOptions, args)
        options = with_recorded_map(options)
        check_output(wanted, bool(options.surface), find_sources(options.image), options.every)
        localized, localizer = localize(options)
        given = localizer.intrinsics(options.intrinsics)
        write_outputs(
            localized.answers,
            localizer.frame,
            options.output_dir,
            wanted,
            surface=scene_of(options, localizer),
            picture_of=lambda answer: photo_of(answer, options.image, given),
            title=f"{options.image.name}, {options.network_in.stem}",
        )

    return exit_status(work, expected=FAILURES, explain=lambda error: explained(error, memory="try --device cpu", loader=""))


if __name__ == "__main__":
    sys.exit(main())
