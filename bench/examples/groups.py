"""What stands in each example photo: sizes, backgrounds, the common object and the others."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Item:
    """A cut-out and the length of its longer side, as a fraction of the photo's short side."""

    name: str
    size: float


@dataclass(frozen=True)
class Photo:
    """One photo: its `size` (width, height) in pixels, background, common object and the others."""

    name: str
    size: tuple[int, int]
    scene: str
    common: Item
    others: tuple[Item, ...]


@dataclass(frozen=True)
class Group:
    """A group of photos; `tilt` is how far, in degrees, its common object may lean on level ground."""

    name: str
    tilt: float
    photos: tuple[Photo, ...]


def _photo(name: str, size: tuple[int, int], scene: str, common: str, *others: str) -> Photo:
    """Build a `Photo` from items written ``name:percent``."""
    items = [Item(text.split(":")[0], int(text.split(":")[1]) / 100) for text in (common, *others)]
    return Photo(name, size, scene, items[0], tuple(items[1:]))


GROUPS = (
    Group("apple", 25.0, (
        _photo("apple-01", (640, 480), "table", "red-apple:38", "glass-of-milk:54", "croissant:36"),
        _photo("apple-02", (480, 640), "cloth", "red-apple:34", "bread:46", "lemon:30", "banana:40"),
        _photo("apple-03", (600, 450), "meadow", "green-apple:46", "basket:58", "rabbit:40"),
        _photo("apple-04", (540, 720), "table", "red-apple:24", "teapot:44", "cheese-wedge:40", "cookie:22"),
        _photo("apple-05", (640, 512), "cloth", "green-apple:52", "carrot:44", "mushroom:32"),
    )),
    Group("cat", 6.0, (
        _photo("cat-01", (640, 480), "room", "cat:50", "ball-of-yarn:28", "potted-plant:50"),
        _photo("cat-02", (512, 680), "meadow", "cat:36", "deciduous-tree:78", "soccer-ball:22"),
        _photo("cat-03", (720, 480), "street", "cat:42", "bicycle:56", "bucket:30", "rooster:34"),
        _photo("cat-04", (480, 600), "room", "cat:55", "teddy-bear:48", "wrapped-present:30"),
        _photo("cat-05", (640, 448), "beach", "cat:30", "ring-buoy:44", "crab:26", "spiral-shell:26"),
    )),
    Group("car", 5.0, (
        _photo("car-01", (680, 480), "street", "automobile:52", "luggage:54", "hiking-boot:24"),
        _photo("car-02", (480, 640), "room", "automobile:36", "teddy-bear:54", "volleyball:26"),
        _photo("car-03", (640, 480), "meadow", "automobile:44", "sheep:48", "evergreen-tree:62", "tulip:22"),
        _photo("car-04", (560, 480), "table", "automobile:30", "camera:46", "potted-plant:44", "game-die:22"),
        _photo("car-05", (512, 640), "beach", "automobile:55", "turtle:32", "bucket:34"),
    )),
    Group("guitar", 20.0, (
        _photo("guitar-01", (640, 480), "room", "guitar:56", "chair:50", "soccer-ball:22"),
        _photo("guitar-02", (480, 640), "meadow", "guitar:48", "tent:62", "rabbit:28"),
        _photo("guitar-03", (640, 512), "beach", "guitar:42", "ring-buoy:40", "umbrella-on-ground:56"),
        _photo("guitar-04", (600, 450), "street", "guitar:46", "luggage:52", "potted-plant:40"),
        _photo("guitar-05", (512, 680), "room", "guitar:60", "teddy-bear:44", "wrapped-present:30"),
    )),
)  # fmt: skip
