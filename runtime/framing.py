"""Which part of each photo of a group its thumbnail shows: the asked shape, the objects whole, at one scale."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from gconet.runtime.co_location import Box, Location
from gconet.runtime.errors import UsageError

Fit = Literal["pad", "crop"]
FITS: tuple[Fit, ...] = get_args(Fit)
LARGEST = 8192  # pixels of a thumbnail's longer side
NEARLY_ALL = 0.85  # of the photo: a crop that keeps more makes nothing larger to speak of, and shows the photo whole
SLACK = 1e-6  # of a side, that rounding may cost


@dataclass(frozen=True)
class Shape:
    """A thumbnail's aspect ratio `across`:`down`, and its longer side in pixels.

    Raises
    ------
    UsageError
        If a number is below 1, the size above 8192, or the shorter side below one pixel.
    """

    across: int
    down: int
    size: int = 256

    def __post_init__(self) -> None:
        if min(self.across, self.down, self.size) < 1 or self.size > LARGEST or min(self.pixels) < 1:
            raise UsageError(
                f"no thumbnail has the aspect {self.across}:{self.down} at {self.size} pixels: "
                f"sizes go up to {LARGEST}, and the shorter side has at least one pixel"
            )

    @property
    def ratio(self) -> float:
        """Width over height."""
        return self.across / self.down

    @property
    def pixels(self) -> tuple[int, int]:
        """Width and height in pixels, within half a pixel of the aspect ratio."""
        longer = max(self.across, self.down)
        return round(self.size * self.across / longer), round(self.size * self.down / longer)


@dataclass(frozen=True)
class Frame:
    """What a thumbnail shows.

    Attributes
    ----------
    shape : of the thumbnail.
    height, width : of the photo, pixels.
    crop : of the shape's aspect ratio; inside the photo unless an object would not fit then, see `frame_group`.
    tight, enlarged : the boxes of the objects it shows, yellow and red in `overlay`; None in a central frame.
    left_out : objects that did not fit beside the most salient ones.
    """

    shape: Shape
    height: int
    width: int
    crop: Box
    tight: Box | None = None
    enlarged: Box | None = None
    left_out: int = 0

    @property
    def padded(self) -> bool:
        """Whether the crop reaches beyond the photo, by half a pixel or more."""
        crop = self.crop
        return min(crop.left, crop.top) < -0.5 or crop.right > self.width + 0.5 or crop.bottom > self.height + 0.5

    @property
    def kept(self) -> float:
        """The share of the photo's area that the crop shows, in (0, 1]."""
        inside = self.crop.within(self.height, self.width)
        return inside.width * inside.height / (self.width * self.height)


def frame_group(locations: Sequence[Location | None], shape: Shape, *, fit: Fit = "pad") -> list[Frame | None]:
    """Frame the photos of a group.

    A crop holds the enlarged boxes of all objects. Within the room that this leaves, the objects take the same share of
    every thumbnail; the share is the one that most photos allow.

    Parameters
    ----------
    locations : of each photo, from `locate`; None where nothing is co-salient.
    shape : of the thumbnails.
    fit : what happens where a crop inside the photo cannot hold all objects, as a train does not fit a square. "pad":
        the crop reaches beyond the photo, and the thumbnail is filled there. "crop": the less salient objects are left
        out; where not even the most salient one fits, the crop is the largest inside the photo, placed where it holds
        most of the saliency.

    Returns
    -------
    One frame for each photo, None where nothing is co-salient.

    Raises
    ------
    UsageError
        If there is no such fit.
    """
    if fit not in FITS:
        raise UsageError(f"no fit {fit!r}: choose one of {', '.join(FITS)}")
    choices = [None if location is None else _choose(location, shape, fit) for location in locations]
    share = _common_share([choice for choice in choices if choice is not None])
    return [
        None if location is None or choice is None else _place(location, shape, choice, share)
        for location, choice in zip(locations, choices, strict=True)
    ]


def central_frame(height: int, width: int, shape: Shape) -> Frame:
    """The largest crop in the middle of a photo, for one in which nothing is co-salient."""
    across = _largest(height, width, shape)
    down = across / shape.ratio
    left, top = (width - across) / 2, (height - down) / 2
    return Frame(shape, height, width, Box(left, top, left + across, top + down))


@dataclass(frozen=True)
class _Choice:
    """The objects to show and how wide a crop may be, in pixels: from `least` to `most`.

    `extent` is how wide a crop would be that holds their tight boxes and no more.
    """

    tight: Box
    enlarged: Box
    left_out: int
    extent: float
    least: float
    most: float


def _choose(location: Location, shape: Shape, fit: Fit) -> _Choice:
    largest = _largest(location.height, location.width, shape)
    first, *others = location.objects
    tight, enlarged, left_out = first.tight, first.enlarged, 0
    for other in others:
        wider = enlarged.joined(other.enlarged)
        fits = _across(wider, shape) <= largest * (1 + SLACK)
        if fits or fit == "pad":
            tight, enlarged = tight.joined(other.tight), wider
        else:
            left_out += 1
    needed = _across(enlarged, shape)
    most = largest if fit == "crop" else max(largest, needed)
    least = min(max(needed, shape.pixels[0]), most)  # no larger than life where the photo has the room
    height, width = location.height, location.width
    if fit == "pad" and min(least, width) * min(least / shape.ratio, height) > NEARLY_ALL * width * height:
        least = most = max(width, height * shape.ratio)
    return _Choice(tight, enlarged, left_out, _across(tight, shape), least, most)


def _common_share(choices: Sequence[_Choice]) -> float:
    """The share of a crop's width that most photos can give their objects; of several the largest, the closest view."""
    ranges = [(choice.extent / choice.most, choice.extent / choice.least) for choice in choices]
    candidates = sorted({high for _, high in ranges}, reverse=True)
    counts = [sum(low <= share * (1 + SLACK) and share <= high for low, high in ranges) for share in candidates]
    return candidates[int(np.argmax(counts))] if candidates else 1.0


def _place(location: Location, shape: Shape, choice: _Choice, share: float) -> Frame:
    across = min(max(choice.extent / share, choice.least), choice.most)
    down = across / shape.ratio
    height, width, saliency = location.height, location.width, location.saliency
    left = _start(choice.enlarged.left, choice.enlarged.right, across, width, saliency.sum(axis=0))
    top = _start(choice.enlarged.top, choice.enlarged.bottom, down, height, saliency.sum(axis=1))
    crop = Box(left, top, left + across, top + down)
    return Frame(shape, height, width, crop, choice.tight, choice.enlarged, choice.left_out)


def _start(
    low: float, high: float, length: float, limit: int, profile: np.ndarray[tuple[int], np.dtype[np.float32]]
) -> float:
    """Where a crop of `length` begins along one axis of a photo of `limit` pixels, so as to hold `low` to `high`."""
    if length >= limit:
        return (limit - length) / 2  # beyond the photo on both sides alike
    if high - low <= length * (1 + SLACK):
        return min(max((low + high - length) / 2, 0.0), limit - length)
    # Too long: where it holds most of the saliency, which is given in len(profile) steps.
    borders = np.linspace(0, limit, len(profile) + 1)
    sums = np.concatenate([[0.0], np.cumsum(profile, dtype=np.float64)])
    starts = np.linspace(max(low, 0.0), min(high, limit) - length, 65)
    held = np.interp(starts + length, borders, sums) - np.interp(starts, borders, sums)
    best = starts[held >= held.max() * (1 - SLACK)]
    return float(min(max(best[len(best) // 2], 0.0), limit - length))


def _across(box: Box, shape: Shape) -> float:
    """The width of the smallest crop of this shape that holds a box."""
    return max(box.width, box.height * shape.ratio)


def _largest(height: int, width: int, shape: Shape) -> float:
    """The width of the largest crop inside a photo."""
    return min(width, height * shape.ratio)
