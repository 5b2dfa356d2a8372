"""The demo page in Chromium: upload, result, a photo left out, the ZIP, bad files, nothing asked of other machines."""

from __future__ import annotations

import re
import shutil
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from browser import chromium, complaints_of, requests_of

import gconet.runtime as gr
from gconet.bench.photo_groups import EXAMPLES
from gconet.runtime.demo_uploads import Limits

pytest.importorskip("gradio", reason="the page needs Gradio: pip install 'gconet-deploy[demo]'")
pytestmark = pytest.mark.slow

Answer = TypeVar("Answer")
PATIENCE = 300  # seconds, on a machine that has other things to do


@pytest.fixture(scope="module")
def address(tiny_bundle: Callable[[str, str], Path]) -> Iterator[str]:
    """A page of the tiny network on a free port."""
    from gconet.runtime.demo_command import serve

    detector = gr.load(tiny_bundle("onnxruntime", "fp32"), threads=1)
    with serve(detector, Limits(photos=4, pixels=10**6, megabytes=1), "127.0.0.1", 0) as url:
        yield url


def until(ready: Callable[[], Answer]) -> Answer:
    """Wait until something is there; elements that are being replaced are asked again."""
    from selenium.common.exceptions import StaleElementReferenceException

    end = time.monotonic() + PATIENCE
    while True:
        try:
            answer = ready()
        except StaleElementReferenceException:
            answer = None  # type: ignore[assignment]
        if answer:
            return answer
        assert time.monotonic() < end, "it did not appear"
        time.sleep(0.1)


class PageInBrowser:
    """The page as a visitor handles it."""

    def __init__(self, driver: Any, address: str) -> None:
        self.driver = driver
        driver.get(address)
        until(lambda: self.all("#upload input[type=file]"))

    def all(self, selector: str) -> list[Any]:
        return list(self.driver.find_elements("css selector", selector))

    def text(self, selector: str) -> str:
        return " ".join(element.text for element in self.all(selector))

    def upload(self, *paths: Path) -> None:
        until(lambda: self.all("#upload input[type=file]"))[0].send_keys("\n".join(map(str, paths)))

    def photos(self) -> list[str]:
        """Titles of the photos that are shown with their pictures."""
        return [element.text.split(" agreement")[0] for element in self.all("#results .gconet-photo h3")]


def test_a_visitor_uploads_leaves_one_out_and_downloads(address: str, tmp_path: Path) -> None:
    apples = sorted((EXAMPLES / "apple").glob("*.jpg"))[:3]
    with chromium(tmp_path) as driver:
        page = PageInBrowser(driver, address)
        page.upload(*apples)
        until(lambda: len(page.photos()) == 3)
        assert page.photos() == [path.name for path in apples]
        assert "A group of 3 photos." in page.text("#change")
        widths = driver.execute_script(
            "return [...document.querySelectorAll('#results img')].map(image => image.naturalWidth)"
        )
        assert len(widths) >= 12
        assert min(widths) > 0
        first_map = page.all("#results img[alt^='map of']")[0].get_attribute("src")
        assert first_map.startswith("data:image/jpeg;base64,")

        page.all("#ticked input[type=checkbox]")[2].click()
        until(lambda: len(page.photos()) == 2)
        assert page.photos() == [path.name for path in apples[:2]]
        cosine = re.search(r"Consensus: cosine (\d\.\d{3})", page.text("#change"))
        assert cosine
        assert "had 3; now 2 photos" in page.text("#change")
        assert len(page.all("#change td")) == 4
        assert page.all("#results img[alt^='map of']")[0].get_attribute("src") != first_map

        page.all("#pack")[0].click()
        until(lambda: page.all("#archive a"))[0].click()
        packed = tmp_path / "downloads" / "gconet.zip"
        until(lambda: packed.exists() and zipfile.is_zipfile(packed))  # its name is taken before it is complete
        with zipfile.ZipFile(packed) as archive:
            assert archive.testzip() is None
            names = set(archive.namelist())
            assert {f"maps/0{index}-apple-0{index}.png" for index in (1, 2)} <= names
            assert not any("apple-03" in name for name in names)
            assert archive.read("contents.txt").decode().splitlines()[0].startswith("01-apple-01: apple-01.jpg")

        page.all("#clear")[0].click()
        until(lambda: not page.photos())
        assert complaints_of(driver) == []
        assert {re.match(r"\w+://[^/]+/", url)[0] for url in requests_of(driver)} == {address}  # type: ignore[index]


def test_bad_files_get_messages_and_the_page_goes_on(address: str, tmp_path: Path) -> None:
    photo = min((EXAMPLES / "cat").glob("*.jpg"))
    text, cut = tmp_path / "<img src=x onerror=alert(1)>.jpg", tmp_path / "cut.jpg"
    text.write_text("not a photo")
    cut.write_bytes(photo.read_bytes()[:3000])
    good = shutil.copy(photo, tmp_path / "${alert(2)} {{value}}.jpg")
    with chromium(tmp_path / "browser") as driver:
        page = PageInBrowser(driver, address)
        page.upload(text, cut)
        until(lambda: "cut.jpg cannot be read" in page.text("#messages [role=alert]"))
        assert "is not a photo" in page.text("#messages")
        assert not page.all("#messages img")
        assert page.photos() == []

        page.upload(good)
        until(lambda: len(page.photos()) == 1)
        assert page.photos() == ["alert(2) value.jpg"]  # Gradio takes out what paths had better not hold
        until(lambda: page.text("#messages") == "")
        page.all("#ticked input[type=checkbox]")[0].click()
        until(lambda: "the group is empty" in page.text("#messages"))
        assert complaints_of(driver) == []


def test_too_many_photos_are_told(address: str, tmp_path: Path) -> None:
    with chromium(tmp_path) as driver:
        page = PageInBrowser(driver, address)
        page.upload(*sorted((EXAMPLES / "car").glob("*.jpg")))
        until(lambda: len(page.photos()) == 4)
        assert "car-05.jpg: left out, a group on this page has at most 4 photos" in page.text("#messages")


@pytest.mark.parametrize("dark", [False, True])
def test_a_phone_shows_it_without_scrolling_sideways(address: str, dark: bool, tmp_path: Path) -> None:
    with chromium(tmp_path, 360, 740, dark) as driver:
        page = PageInBrowser(driver, address)
        page.upload(min((EXAMPLES / "guitar").glob("*.jpg")))
        until(page.photos)
        inner, scroll = driver.execute_script("return [innerWidth, document.documentElement.scrollWidth]")
        assert (inner, scroll <= inner) == (360, True)
        assert driver.execute_script("return document.body.classList.contains('dark')") is dark


def test_the_server_gives_away_no_files_and_says_what_may_be_loaded(address: str) -> None:
    import urllib.error
    import urllib.request

    with urllib.request.urlopen(address) as answer:
        assert "default-src 'self'" in answer.headers["content-security-policy"]
        body = answer.read().decode()
    assert not re.search(r"""(src|href)=["']?https?:|fonts\.g|cdn""", body)
    for path in ("/etc/passwd", str(Path(__file__).resolve()), str(Path("pyproject.toml").resolve())):
        with pytest.raises(urllib.error.HTTPError) as refusal:
            urllib.request.urlopen(f"{address}gradio_api/file={path}")
        assert refusal.value.code in (403, 404)
    for address_elsewhere in ("file=https://example.org/", "file=HTTP://example.org", "proxy=https://example.org/"):
        with pytest.raises(urllib.error.HTTPError) as refusal:
            urllib.request.urlopen(f"{address}gradio_api/{address_elsewhere}")
        assert refusal.value.read() == b"nothing is fetched from elsewhere"
