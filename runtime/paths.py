"""Looking at paths that a user named."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Literal

from gconet.runtime.errors import GconetError, UsageError, one_line


def kind_of(
    path: str | os.PathLike[str], refusal: type[GconetError] = UsageError
) -> Literal["file", "folder", "other"] | None:
    """What is at `path`, links followed; None if nothing is.

    Raises
    ------
    refusal
        If there is no looking: a name too long, a folder that may not be entered, links in a circle.
    """
    try:
        mode = Path(path).stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise refusal(f"cannot look at {path}: {reason(error)}") from error
    if stat.S_ISREG(mode):
        return "file"
    return "folder" if stat.S_ISDIR(mode) else "other"


def folder_problem(folder: Path) -> str | None:
    """Why files cannot be written in a folder, which may have to be made first; None if nothing seems in the way.

    Raises UsageError as for `kind_of`.
    """
    place = next(path for path in (folder, *folder.parents) if kind_of(path))
    if kind_of(place) != "folder":
        return f"{place} is no folder"
    return None if os.access(place, os.W_OK | os.X_OK) else f"{place} may not be written in"


def reason(error: OSError | ValueError) -> str:
    """Why a path cannot be used, without the number and the path that `str(error)` has."""
    return getattr(error, "strerror", None) or one_line(error)
