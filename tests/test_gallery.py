"""The gallery as a file: one page, nothing from elsewhere, names escaped."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import io
import re
from pathlib import Path

import numpy as np
import pytest
from html_page import Page
from PIL import Image

from gconet.runtime.errors import UsageError
from gconet.runtime.gallery import SCRIPT, STYLE, open_gallery
from gconet.runtime.show_group import GroupPoints, ShownGroup, ShownPhoto

pytest.importorskip("matplotlib", reason="pictures need matplotlib: pip install 'gconet-deploy[pictures]'")

HOSTILE = """"><script>alert(1)</script><img src=x onerror='alert(2)'>&amp;${alert(3)}.jpg"""


def group(*names: str, count: int | None = None, name: str = "things") -> ShownGroup:
    rng = np.random.default_rng(0)
    photos = tuple(
        ShownPhoto(
            Path(photo),
            rng.integers(0, 256, (90, 120, 3), dtype=np.uint8),
            np.tile(np.linspace(0, 1, 120, dtype=np.float32), (90, 1)),
            np.full((4, 4), 1 / 16, np.float32),
        )
        for photo in names
    )
    points = GroupPoints(name, np.ones(3, np.float32), np.ones((1, 3), np.float32), ())
    return ShownGroup(name, count or len(names), photos, points)


def write(path: Path, *groups: ShownGroup, title: str = "GCoNet") -> str:
    with open_gallery(path, title) as gallery:
        for one in groups:
            gallery.add(one)
    return path.read_text("utf-8")


def test_every_photo_has_its_map_its_attention_and_a_slider(tmp_path: Path) -> None:
    page = Page(write(tmp_path / "g.html", group("a.jpg", "b c.jpg"), group("d.jpg", name="more/été")))
    images = page.attributes_of("img")
    assert [image["alt"] for image in images[:3]] == ["photo a.jpg", "map of a.jpg", "attention in a.jpg"]
    assert len(images) == 9
    sliders = [entry for entry in page.attributes_of("input") if entry["type"] == "range"]
    assert len(sliders) == 3
    assert all(slider["aria-label"] for slider in sliders)
    assert "b c.jpg" in (sliders[1]["aria-label"] or "")
    assert "more/été" in page.text
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in page.attributes_of("meta")


def test_pictures_are_inside_and_what_they_say(tmp_path: Path) -> None:
    page = Page(write(tmp_path / "g.html", group("a.jpg")))
    shapes = []
    for image in page.attributes_of("img"):
        head, _, body = (image["src"] or "").partition(",")
        assert head == "data:image/jpeg;base64"
        with Image.open(io.BytesIO(base64.b64decode(body, validate=True))) as picture:
            shapes.append(picture.size)
            if image.get("class") == "over map":
                ramp = np.asarray(picture.convert("L")).mean(0)
                assert np.abs(ramp - np.linspace(0, 255, 120)).max() < 12
    assert shapes == [(120, 90), (120, 90), (32, 32)]


def test_nothing_is_loaded_from_anywhere(tmp_path: Path) -> None:
    text = write(tmp_path / "g.html", group("a.jpg"))
    assert not re.search(r"https?:|//[a-z]|@import|url\(|srcset|<link(?! rel=\"icon\" href=\"data:)", text)
    assert all(link.startswith("data:") for link in Page(text).links)
    (policy,) = [
        meta["content"] or ""
        for meta in Page(text).attributes_of("meta")
        if meta.get("http-equiv") == "Content-Security-Policy"
    ]
    assert policy.startswith("default-src 'none'; img-src data:;")
    for content in (STYLE, SCRIPT):
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy
        assert content in text
    assert "unsafe" not in policy


def test_names_are_escaped_wherever_they_stand(tmp_path: Path) -> None:
    hostile = HOSTILE.replace("/", "\u2215")
    text = write(tmp_path / "g.html", group(hostile, "\udcff.jpg", name=HOSTILE), title=HOSTILE)
    page = Page(text)
    assert len(page.attributes_of("script")) == 1
    assert all(set(image) <= {"width", "height", "alt", "src", "class"} for image in page.attributes_of("img"))
    assert page.attributes_of("img")[0]["alt"] == f"photo {hostile}"
    assert "alert(1)</script>" not in text
    assert "?.jpg" in page.text  # a name that is no text


def test_a_group_that_is_shown_in_part_says_so(tmp_path: Path) -> None:
    assert "113 photos, the first 2 of them shown" in Page(write(tmp_path / "g.html", group("a", "b", count=113))).text
    assert "one photo" in Page(write(tmp_path / "g.html", group("a"))).text


def test_a_page_that_fails_half_way_is_not_there(tmp_path: Path) -> None:
    broken = dataclasses.replace(group("a", "b"), photos=(*group("a").photos, None))
    with pytest.raises(AttributeError), open_gallery(tmp_path / "g.html", "x") as gallery:
        gallery.add(broken)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_its_place_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "g.html").mkdir()
    with pytest.raises(UsageError, match=r"cannot write .*g\.html"), open_gallery(tmp_path / "g.html", "x"):
        pass
