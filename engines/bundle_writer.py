"""Writing a bundle: everything goes to a temporary folder that gets its final name when it is complete."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from gconet.engines.staging import put_in_place, staging_folder
from gconet.runtime.atomic import cannot_fill, cannot_write
from gconet.runtime.bundle import describe_file
from gconet.runtime.errors import UsageError
from gconet.runtime.manifest import MANIFEST_NAME, FileEntry, Manifest
from gconet.runtime.paths import kind_of


def check_output(out: Path) -> None:
    """Raise UsageError if `out` exists and is not an earlier bundle, which may be replaced."""
    if not out.name:
        raise UsageError(f"cannot write a bundle to {out}: name a folder, such as build/gconet.gconet")
    if kind_of(out) is not None and kind_of(out / MANIFEST_NAME) != "file":
        raise UsageError(f"{out} exists and is not a bundle: choose another --out, or remove it")


@contextlib.contextmanager
def staged_bundle(out: Path) -> Iterator[Path]:
    """A temporary folder beside `out` that replaces it when the block ends well, and vanishes when it does not.

    Where two write the same bundle, each is complete, and the last one stays.

    Raises
    ------
    UsageError
        If `out` is something else than an earlier bundle, or its folder cannot be written.
    """
    check_output(out)
    with contextlib.ExitStack() as stack:
        with cannot_write(out):
            staging = stack.enter_context(staging_folder(out))
        with cannot_fill(staging, out):
            yield staging
        with cannot_write(out):
            put_in_place(staging, out)


def describe_files(paths: Iterable[Path]) -> dict[str, FileEntry]:
    """The manifest's entries for artefacts."""
    return {path.name: describe_file(path) for path in paths}


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write or replace a folder's manifest."""
    (folder / MANIFEST_NAME).write_text(manifest.to_json(), "utf-8")
