"""Opening a bundle: a folder `NAME.gconet/` whose every byte is checked before an engine sees it."""

from __future__ import annotations

import hashlib
import logging
import os
import time
from dataclasses import dataclass
from pathlib import Path

from gconet.runtime.errors import BundleError
from gconet.runtime.manifest import MANIFEST_NAME, FileEntry, Manifest
from gconet.runtime.paths import kind_of

LOG = logging.getLogger(__name__)
MAX_MANIFEST_BYTES = 16_000_000  # the largest, of plans with an audit of every layer, have a hundred thousand
REBUILD = "build it again with `gconet build`"


@dataclass(frozen=True)
class Bundle:
    """A bundle whose files match its manifest."""

    folder: Path
    manifest: Manifest

    def file(self, suffix: str) -> Path:
        """Path of the artefact of that name, or else of one that ends so; raises BundleError if there is none."""
        if suffix in self.manifest.files:
            return self.folder / suffix
        for name in self.manifest.files:
            if name.endswith(suffix):
                return self.folder / name
        raise BundleError(f"{self.folder} holds no {suffix} file for target {self.manifest.target}: {REBUILD}")

    def graphs(self, suffix: str) -> frozenset[str]:
        """Names of the graphs it holds as files that end in `suffix`."""
        return frozenset(name.removesuffix(suffix) for name in self.manifest.files if name.endswith(suffix))


def open_bundle(path: str | os.PathLike[str], require_signature: str | os.PathLike[str] | None = None) -> Bundle:
    """Read the manifest and verify size and SHA-256 of every artefact.

    Engines get paths, and may read a graph when it is first used: keep others from writing to the folder meanwhile.

    Parameters
    ----------
    require_signature : a public Ed25519 key in PEM whose owner must have signed the manifest with `gconet sign`; it is
        checked before anything in the manifest is believed. None asks for no signature.

    Raises
    ------
    BundleError
        If the folder or a file is missing, a byte differs, or the manifest is damaged or of a newer schema; if a
        signature is required, also if it is missing, damaged, or of another key or manifest.
    UsageError
        If `require_signature` is no such key.
    TargetError
        If a signature is required, and cryptography is not installed.
    """
    folder, start = Path(path), time.perf_counter()
    content = read_manifest(folder)
    signer = "none was required"
    if require_signature is not None:
        from gconet.runtime.signing import check_signature

        signer = f"by key {check_signature(folder, content, require_signature)}"
    bundle = verify_files(folder, content)
    manifest, size = bundle.manifest, sum(entry.bytes for entry in bundle.manifest.files.values())
    LOG.info(
        "bundle %s: %s %s, built with %s %s on %s; %d files of %.1f MB verified in %.0f ms; signature: %s",
        *(folder, manifest.target, manifest.precision, manifest.target, manifest.target_version, manifest.created),
        *(len(manifest.files), size / 1e6, 1e3 * (time.perf_counter() - start), signer),
    )
    return bundle


def read_manifest(folder: Path) -> bytes:
    """The bytes of a bundle's manifest; raises BundleError if there is no such file, or none of a manifest's size."""
    if kind_of(folder, BundleError) != "folder":
        raise BundleError(f"no bundle at {folder}: make one with `gconet build --out {folder}`")
    path = folder / MANIFEST_NAME
    if kind_of(path, BundleError) != "file":  # a pipe would be waited for, a device never end
        raise BundleError(f"{folder} is not a bundle: it has no readable {MANIFEST_NAME}")
    try:
        with path.open("rb") as file:
            content = file.read(MAX_MANIFEST_BYTES + 1)
    except OSError as error:
        raise BundleError(f"{folder} is not a bundle: it has no readable {MANIFEST_NAME}") from error
    if len(content) > MAX_MANIFEST_BYTES:
        raise BundleError(f"{path} is too large for a manifest (over {MAX_MANIFEST_BYTES / 1e6:.0f} MB): {REBUILD}")
    return content


def verify_files(folder: Path, manifest: bytes) -> Bundle:
    """Read a manifest's bytes, and verify the files that it lists; raises BundleError as `open_bundle` does."""
    try:
        text = manifest.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BundleError(f"{folder} is not a bundle: it has no readable {MANIFEST_NAME}") from error
    opened = Bundle(folder, Manifest.from_json(text, str(folder)))
    for name, entry in opened.manifest.files.items():
        _verify(folder / name, entry)
    return opened


def describe_file(path: Path) -> FileEntry:
    """Size and SHA-256 of a file."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return FileEntry(digest, path.stat().st_size)


def _verify(path: Path, entry: FileEntry) -> None:
    if kind_of(path, BundleError) != "file" or path.is_symlink():
        raise BundleError(f"{path} is missing or not a plain file: {REBUILD}")
    try:
        as_built = path.stat().st_size == entry.bytes and describe_file(path) == entry  # no terabytes are hashed
    except OSError as error:
        raise BundleError(f"cannot read {path}: {error.strerror}") from error
    if not as_built:
        raise BundleError(f"{path} is not the file that was built (size or SHA-256 differs): {REBUILD}")
