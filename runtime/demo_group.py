"""What the demo page computes for a visitor's group; nothing here knows of Gradio.

Memory holds one photo of full size at a time; what is kept of each is small, or on the disk.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gconet.runtime.atomic import replacing
from gconet.runtime.cutout import cutout, rgba
from gconet.runtime.demo_uploads import Limits, Upload, accept_uploads
from gconet.runtime.detector import Detector
from gconet.runtime.errors import UsageError
from gconet.runtime.group_vectors import cosine
from gconet.runtime.photos import read_photo
from gconet.runtime.preprocess import FloatArray, Photo, to_bytes
from gconet.runtime.show_pictures import shrink, shrink_map
from gconet.runtime.thumbnail import Shape, frame_group, locate, thumbnail

SHAPES = (Shape(1, 1, 256), Shape(4, 3, 256))
LONGEST = 560  # pixels of the longer side of pictures on the page
COMPARED = 64  # side of the maps that are compared from group to group


@dataclass(frozen=True)
class Seen:
    """A photo of the group, made small, and what was found in it.

    Attributes
    ----------
    picture : (h, w, 3) uint8.
    saliency : its map, (h, w) in [0, 1].
    attention : of the GAM, 14×14 at 224 pixels, of sum 1.
    alpha : of the cut-out, (h, w) uint8; None if nothing is co-salient.
    thumbnails : of the shapes asked for, (h, w, 3) uint8 each; none if nothing is co-salient.
    agreement : cosine of the photo's own consensus and the group's.
    """

    upload: Upload
    picture: Photo
    saliency: FloatArray
    attention: FloatArray
    alpha: NDArray[np.uint8] | None
    thumbnails: tuple[Photo, ...]
    agreement: float


@dataclass(frozen=True)
class Findings:
    """What was found in a group, and its consensus (C,)."""

    seen: tuple[Seen, ...]
    consensus: FloatArray


@dataclass(frozen=True)
class Change:
    """From one group to the next: cosine of their consensus, and how far maps of photos in both moved.

    Attributes
    ----------
    before, after : photos in the groups.
    maps : by label, mean absolute difference of the photo's maps, in [0, 1].
    """

    before: int
    after: int
    cosine: float
    maps: Mapping[str, float]


@dataclass
class Visit:
    """A visitor's photos and what was last found in them.

    Attributes
    ----------
    folder : where the photos lie; it goes when the visit is over.
    uploads : all photos, also those that are left out of the group for now.
    alone : the consensus of each photo by itself, by its path; computed once.
    """

    folder: Path
    uploads: list[Upload] = field(default_factory=list)
    alone: dict[Path, FloatArray] = field(default_factory=dict)
    findings: Findings | None = None

    def add(self, files: Sequence[Path], limits: Limits) -> list[str]:
        """Take photos in; returns a line for each file that is refused."""
        taken, refused = accept_uploads(files, self.folder, self.uploads, limits)
        self.uploads += taken
        return refused

    def chosen(self, labels: Sequence[str]) -> list[Upload]:
        """The photos of these labels, in the order of their upload."""
        return [upload for upload in self.uploads if upload.label in labels]

    def find(self, detector: Detector, labels: Sequence[str]) -> tuple[Findings, Change | None]:
        """Look at the group of these photos, and compare it with the one before.

        Raises
        ------
        UsageError
            If there are none.
        BundleError, PhotoError, TargetError
            As for `Detector.detect` and `Detector.consensus`.
        """
        before = self.findings
        self.findings = find(detector, self.chosen(labels), self.alone)
        return self.findings, None if before is None else compare(before, self.findings)


def find(detector: Detector, uploads: Sequence[Upload], alone: dict[Path, FloatArray]) -> Findings:
    """Look at a group; consensus vectors of single photos are taken from `alone`, or put there. See `Visit.find`."""
    if not uploads:
        raise UsageError("the group is empty: upload photos, or tick some")
    paths = [upload.path for upload in uploads]
    consensus, attention = detector.consensus_and_attention(paths)
    pictures, maps = [], []
    for path, saliency in zip(paths, detector.stream(paths), strict=True):
        picture = shrink(read_photo(path), LONGEST)
        pictures.append(picture)
        maps.append(shrink_map(saliency, *picture.shape[:2]))
        if path not in alone:
            alone[path] = detector.consensus([path])
    seen = [
        Seen(upload, picture, saliency, attention[index], cutout(picture, saliency), thumbnails,
             cosine(alone[upload.path], consensus))
        for index, (upload, picture, saliency, thumbnails) in enumerate(
            zip(uploads, pictures, maps, crop(pictures, maps), strict=True)
        )
    ]  # fmt: skip
    return Findings(tuple(seen), consensus)


def crop(photos: Sequence[Photo], maps: Sequence[FloatArray]) -> list[tuple[Photo, ...]]:
    """Thumbnails of a group's photos, of each shape; none where nothing is co-salient."""
    locations = [locate(saliency) for saliency in maps]
    frames = [frame_group(locations, shape) for shape in SHAPES]
    return [
        tuple(thumbnail(photo, frame) for frame in of_photo if frame)
        for photo, *of_photo in zip(photos, *frames, strict=True)
    ]


def compare(before: Findings, after: Findings) -> Change:
    """What became of the consensus and of the maps."""
    earlier = {one.upload.label: one for one in before.seen}
    maps = {
        one.upload.label: float(np.abs(_small(one) - _small(earlier[one.upload.label])).mean())
        for one in after.seen
        if one.upload.label in earlier
    }
    return Change(len(before.seen), len(after.seen), cosine(before.consensus, after.consensus), maps)


def write_zip(detector: Detector, uploads: Sequence[Upload], path: Path) -> None:
    """Write maps, cut-outs and thumbnails of a group, at the photos' own sizes, into a ZIP.

    Names in it are made of numbers and plain letters; `contents.txt` says which photo is which, and where nothing was
    found.

    Raises
    ------
    UsageError
        If there are no photos, or the file cannot be written; and as for `Visit.find`.
    """
    if not uploads:
        raise UsageError("the group is empty: upload photos, or tick some")
    lines, locations = [], []
    with replacing(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        maps = detector.stream([upload.path for upload in uploads])
        for upload, saliency in zip(uploads, maps, strict=True):
            photo = read_photo(upload.path)
            _add(archive, f"maps/{upload.slug}.png", to_bytes(saliency))
            alpha = cutout(photo, saliency)
            if alpha is not None:
                _add(archive, f"cutouts/{upload.slug}.png", rgba(photo, alpha))
            lines.append(f"{upload.slug}: {upload.label}{'' if alpha is not None else ': nothing found'}\n")
            locations.append(locate(saliency))
        for shape in SHAPES:
            for upload, frame in zip(uploads, frame_group(locations, shape), strict=True):
                if frame:
                    name = f"thumbnails/{upload.slug}-{shape.across}x{shape.down}.png"
                    _add(archive, name, thumbnail(read_photo(upload.path), frame))
        archive.writestr("contents.txt", "".join(lines))


def _small(one: Seen) -> FloatArray:
    return shrink_map(one.saliency, COMPARED, COMPARED)


def _add(archive: zipfile.ZipFile, name: str, picture: NDArray[np.uint8]) -> None:
    with archive.open(name, "w") as file:
        Image.fromarray(picture).save(file, format="PNG")
