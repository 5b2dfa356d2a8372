"""Libraries that only some features need: one line that names the install where they are missing."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from gconet.runtime.errors import TargetError


@contextlib.contextmanager
def needing(extra: str, what: str) -> Iterator[None]:
    """Turn a failing import in the block into a TargetError: `what` needs such a library, and `extra` brings it."""
    try:
        yield
    except ImportError as error:  # also of a library that is there and lacks a part of the system's
        if (error.name or "").startswith("gconet"):
            raise
        missing = error.name or str(error)
        raise TargetError(f"{what} needs {missing}: pip install 'gconet-deploy[{extra}]'") from error
