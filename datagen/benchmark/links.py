"""Files that would be copies: relative links, so that a data set moves as a whole, or copies on request."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path


def put(path: Path, write: Callable[[Path], None]) -> None:
    """Writes a file under a hidden name and gives it its own when it is whole; what was there before is replaced."""
    temporary = path.with_name(f".part-{uuid.uuid4().hex[:8]}-{path.name}")
    try:
        write(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def link(path: Path, target: Path, *, copy: bool, seen_from: Path | None = None) -> None:
    """Makes `path` a relative link to `target`, or a copy of it.

    Args:
        seen_from: folder that `path` will lie in, when it is not the one in which it is made.
    Raises:
        OSError: the file system knows no links; says what to do.
    """
    if copy:
        put(path, lambda temporary: shutil.copyfile(target, temporary))
        return
    # A folder that is itself a link would lead ".." elsewhere.
    folder = Path(os.path.abspath(seen_from or path.parent))
    relative = os.path.relpath(os.path.realpath(target.parent) + os.sep + target.name, _real(folder))
    try:
        put(path, lambda temporary: temporary.symlink_to(relative))
    except (OSError, NotImplementedError) as error:
        raise OSError(f"cannot link {path} ({error}); --copy copies instead") from None


def _real(folder: Path) -> str:
    """A folder without links in it, of which the last parts need not be there yet."""
    missing: list[str] = []
    while not folder.exists():
        missing.append(folder.name)
        folder = folder.parent
    return os.path.join(os.path.realpath(folder), *reversed(missing))
