"""Kernels that TensorRT for RTX compiled for this GPU, kept for the next process: compiling them takes seconds."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import sys
from pathlib import Path
from typing import Any

from gconet.runtime.atomic import replacing
from gconet.runtime.errors import UsageError


def cache_folder() -> Path | None:
    """Where the user's system keeps what can be made again, in a folder of our own; None for a user without a home."""
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or "~/AppData/Local"
    elif sys.platform == "darwin":
        base = "~/Library/Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    with contextlib.suppress(RuntimeError):  # which is how pathlib says that there is no home
        return Path(base).expanduser() / "gconet"
    return None


class KernelCache:
    """The kernels of one plan on one kind of GPU, shared by all execution contexts of an engine.

    TensorRT checks a file against the GPU, the driver and its own version before it takes anything from it. Where none
    can be read or written, kernels are compiled anew.
    """

    def __init__(self, runtime_config: Any, plan_sha256: str, gpu_name: str) -> None:
        name = f"{plan_sha256[:16]}-{re.sub(r'[^A-Za-z0-9]+', '-', gpu_name)}.kernels"
        folder = cache_folder()
        self._path = folder / name if folder else None
        self._cache = runtime_config.create_runtime_cache()
        self._written = b""  # digest of what the file holds
        with contextlib.suppress(OSError):
            kernels = self._path.read_bytes() if self._path else b""
            if kernels and self._cache.deserialize(kernels):
                self._written = hashlib.sha256(kernels).digest()
        runtime_config.set_runtime_cache(self._cache)

    def save(self) -> None:
        """Write the file if there are new kernels."""
        if self._path is None:
            return
        serialized = self._cache.serialize()
        kernels = b"" if serialized is None else bytes(serialized)
        digest = hashlib.sha256(kernels).digest()
        if not kernels or digest == self._written:
            return
        with contextlib.suppress(UsageError), replacing(self._path) as temporary:
            temporary.write_bytes(kernels)
        self._written = digest
