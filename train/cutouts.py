"""Objects cut out of their background, for synthetic groups and distractors. Ours, not the paper's."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from gconet.train.augment import Picture
from gconet.train.groups import DataError

CUTOUT_SUFFIXES = {".png", ".webp"}


@dataclass(frozen=True)
class Cutouts:
    """Paths of RGBA pictures."""

    paths: tuple[Path, ...]

    @staticmethod
    def below(folder: Path | None) -> Cutouts:
        """All cut-outs of a folder, none for None; raises DataError if the folder holds fewer than two."""
        if folder is None:
            return Cutouts(())
        paths = tuple(sorted(path for path in folder.glob("*") if path.suffix in CUTOUT_SUFFIXES))
        if len(paths) < 2:
            raise DataError([f"{len(paths)} cut-outs (.png, .webp) in {folder}, at least two are needed"])
        return Cutouts(paths)

    def read(self, index: int) -> Picture:
        """One cut-out as RGBA."""
        with Image.open(self.paths[index]) as image:
            return image.convert("RGBA")

    def draw(self, rng: np.random.Generator) -> Picture:
        """Any cut-out."""
        return self.read(int(rng.integers(len(self.paths))))

    def draw_other(self, index: int, rng: np.random.Generator) -> Picture:
        """Any cut-out but one."""
        return self.read((index + int(rng.integers(1, len(self.paths)))) % len(self.paths))
