"""The gallery in Chromium: it asks for nothing, its sliders work by keyboard, and it fits a phone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from browser import chromium, complaints_of, requests_of
from test_gallery import HOSTILE, group, write

pytestmark = pytest.mark.slow


def boundary(driver: Any) -> tuple[float, float]:
    """Where the first map begins, as the browser computes it, and the slider's value."""
    clip, value = driver.execute_script(
        "const over = document.querySelector('.over.map');"
        "return [getComputedStyle(over).clipPath, document.querySelector('input[type=range]').value]"
    )
    return float(clip.split()[-1].rstrip("%)")), float(value)


def test_a_slider_moves_by_keyboard_and_nothing_is_requested(tmp_path: Path) -> None:
    page = tmp_path / "gallery.html"
    write(page, group(HOSTILE.replace("/", "\u2215"), "b.jpg", name=HOSTILE))
    with chromium(tmp_path / "browser") as driver:
        from selenium.webdriver.common.by import By
        from selenium.webdriver.common.keys import Keys

        driver.get(page.as_uri())
        assert boundary(driver) == (50, 50)
        slider = driver.find_element(By.CSS_SELECTOR, "input[type=range]")
        body = driver.find_element(By.TAG_NAME, "body")
        for _ in range(10):  # past the choice of views
            driver.switch_to.active_element.send_keys(Keys.TAB)
            if driver.switch_to.active_element == slider:
                break
        assert driver.switch_to.active_element == slider
        assert driver.execute_script("return getComputedStyle(arguments[0]).outlineStyle", slider) == "solid"
        slider.send_keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
        assert boundary(driver) == (60, 60)
        slider.send_keys(Keys.ARROW_LEFT)
        assert boundary(driver) == (55, 55)
        slider.send_keys(Keys.HOME)
        assert boundary(driver) == (0, 0)
        assert slider.get_attribute("aria-valuetext") == "0 % photo"
        second = driver.find_elements(By.CSS_SELECTOR, "input[type=range]")[1]
        assert second.get_attribute("value") == "50"  # each has its own

        attention = driver.find_element(By.CSS_SELECTOR, ".over.attention")
        assert not attention.is_displayed()
        driver.find_element(By.CSS_SELECTOR, "label:has(#show-attention)").click()
        assert attention.is_displayed()
        assert not driver.find_element(By.CSS_SELECTOR, ".over.map").is_displayed()

        sizes = driver.execute_script("return [...document.images].map(image => image.naturalWidth)")
        assert sizes == [120, 120, 32] * 2  # every picture was decoded
        assert "alert(1)" in body.text  # as text: a script would have opened a dialogue, which fails every call here
        assert requests_of(driver) == [page.as_uri()]
        assert complaints_of(driver) == []


@pytest.mark.parametrize("dark", [False, True])
def test_a_phone_shows_it_without_scrolling_sideways_light_or_dark(dark: bool, tmp_path: Path) -> None:
    page = tmp_path / "gallery.html"
    write(page, group("a" * 80 + ".jpg", "b.jpg"))
    with chromium(tmp_path / "browser", 360, 740, dark) as driver:
        driver.get(page.as_uri())
        inner, scroll, left, card = driver.execute_script(
            "const card = document.querySelector('figure').getBoundingClientRect();"
            "return [innerWidth, document.documentElement.scrollWidth, card.left, card.width]"
        )
        assert inner == 360
        assert scroll <= inner
        assert left >= 0
        assert card > 0.8 * inner  # one column
        red = (
            driver.execute_script("return getComputedStyle(document.body).backgroundColor").split("(")[1].split(",")[0]
        )
        assert (int(red) < 60) is dark
