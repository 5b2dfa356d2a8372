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


def reason(error: OSError | ValueError) -> str:
    """Why a path cannot be used, without the number and the path that `str(error)` has."""
    return getattr(error, "strerror", None) or one_line(error)
