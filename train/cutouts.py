"""Objects cut out of their background, for synthetic groups and distractors. Ours, not the paper's."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from gconet.runtime.errors import PhotoError, one_line
from gconet.train.augment import Picture
from gconet.train.groups import DataError, Sample, read_pictures

CUTOUT_SUFFIXES = frozenset({".png", ".webp"})
FORMATS = ("PNG", "WEBP")  # whatever the suffix, as for photos


@dataclass(frozen=True)
class Cutouts:
    """RGBA pictures, numbered first, then photos whose masks tell the object from the background."""

    pictures: tuple[Path, ...]
    masked: tuple[Sample, ...] = ()

    @staticmethod
    def below(folder: Path | None, masked: Iterable[Sample] = ()) -> Cutouts:
        """All RGBA pictures of a folder, none for None; raises DataError if the folder holds fewer than two."""
        paths: tuple[Path, ...] = ()
        if folder is not None:
            paths = tuple(sorted(path for path in folder.glob("*") if path.suffix.lower() in CUTOUT_SUFFIXES))
            if len(paths) < 2:
                raise DataError([f"{len(paths)} cut-outs (.png, .webp) in {folder}, at least two are needed"])
        return Cutouts(paths, tuple(masked))

    def __len__(self) -> int:
        return len(self.pictures) + len(self.masked)

    def read(self, index: int) -> Picture:
        """One cut-out as RGBA; raises PhotoError where it cannot be read."""
        if index < len(self.pictures):
            path = self.pictures[index]
            try:
                with Image.open(path, formats=FORMATS) as image:
                    return image.convert("RGBA")
            except Exception as error:  # Pillow's decoders raise almost anything
                raise PhotoError(
                    f"the cut-out {path} cannot be read ({one_line(error)}): replace it or leave it out"
                ) from error
        photo, mask = read_pictures(self.masked[index - len(self.pictures)])
        photo.putalpha(mask)
        return photo

    def draw(self, rng: np.random.Generator, but: Collection[int]) -> Picture:
        """Any cut-out but some, which must not be all."""
        index = int(rng.integers(len(self)))
        while index in but:
            index = int(rng.integers(len(self)))
        return self.read(index)
