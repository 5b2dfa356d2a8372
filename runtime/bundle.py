"""Opening a bundle: a folder `NAME.gconet/` whose every byte is checked before an engine sees it."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from gconet.runtime.errors import BundleError
from gconet.runtime.manifest import MANIFEST_NAME, FileEntry, Manifest
from gconet.runtime.paths import kind_of

REBUILD = "build it again with `gconet build`"


@dataclass(frozen=True)
class Bundle:
    """A bundle whose files match its manifest."""

    folder: Path
    manifest: Manifest

    def file(self, suffix: str) -> Path:
        """Path of the one artefact that ends in `suffix`; raises BundleError if there is none."""
        for name in self.manifest.files:
            if name.endswith(suffix):
                return self.folder / name
        raise BundleError(f"{self.folder} holds no {suffix} file for target {self.manifest.target}: {REBUILD}")

    def graphs(self, suffix: str) -> frozenset[str]:
        """Names of the graphs it holds as files that end in `suffix`."""
        return frozenset(name.removesuffix(suffix) for name in self.manifest.files if name.endswith(suffix))


def open_bundle(path: str | os.PathLike[str]) -> Bundle:
    """Read the manifest and verify size and SHA-256 of every artefact.

    Raises
    ------
    BundleError
        If the folder or a file is missing, a byte differs, or the manifest is damaged or of a newer schema.
    """
    folder = Path(path)
    if kind_of(folder, BundleError) != "folder":
        raise BundleError(f"no bundle at {folder}: make one with `gconet build --out {folder}`")
    manifest_path = folder / MANIFEST_NAME
    try:
        text = manifest_path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BundleError(f"{folder} is not a bundle: it has no readable {MANIFEST_NAME}") from error
    manifest = Manifest.from_json(text, str(folder))
    for name, entry in manifest.files.items():
        _verify(folder / name, entry)
    return Bundle(folder, manifest)


def describe_file(path: Path) -> FileEntry:
    """Size and SHA-256 of a file."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return FileEntry(digest, path.stat().st_size)


def _verify(path: Path, entry: FileEntry) -> None:
    if kind_of(path, BundleError) != "file" or path.is_symlink():
        raise BundleError(f"{path} is missing or not a plain file: {REBUILD}")
    try:
        found = describe_file(path)
    except OSError as error:
        raise BundleError(f"cannot read {path}: {error.strerror}") from error
    if found != entry:
        raise BundleError(f"{path} is not the file that was built (size or SHA-256 differs): {REBUILD}")
