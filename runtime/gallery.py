"""A gallery as one HTML file: photos under a slider that shows their maps. Nothing is loaded from anywhere."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from pathlib import Path
from typing import IO

from gconet.runtime.atomic import cannot_fill, replacing
from gconet.runtime.preprocess import to_bytes
from gconet.runtime.show_group import ShownGroup, ShownPhoto
from gconet.runtime.show_pictures import data_uri, heat, relative_attention, upsample_attention

ATTENTION_SIDE = 8  # times that of the network's: the browser smooths the rest

STYLE = """
:root { color-scheme: light dark; --ink: #16181d; --soft: #5b616e; --line: #d5d8de; --page: #ffffff; --card: #f1f2f5;
  --accent: #1f5fcc; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8eaee; --soft: #a3a9b6; --line: #3a3f4a; --page: #14161a;
  --card: #1e2127; --accent: #8ab4ff; } }
* { box-sizing: border-box; }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--page); max-width: 84rem;
  margin: 0 auto; padding: 1rem; overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; margin: .2rem 0; } h2 { font-size: 1.2rem; margin: 2rem 0 .6rem; }
p { margin: .3rem 0; } .note, figcaption { color: var(--soft); }
fieldset { border: 1px solid var(--line); border-radius: .5rem; display: flex; flex-wrap: wrap; gap: .2rem 1.4rem;
  margin: .8rem 0; padding: .4rem .8rem .6rem; }
fieldset label { display: flex; align-items: baseline; gap: .3rem; padding: .35rem 0; cursor: pointer; }
input { accent-color: var(--accent); }
input:focus-visible { outline: 3px solid var(--accent); outline-offset: 3px; border-radius: .3rem; }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 17rem), 1fr)); gap: 1rem;
  align-items: start; }
figure { margin: 0; padding: .6rem; background: var(--card); border: 1px solid var(--line); border-radius: .5rem;
  --at: 50%; }
.stack { position: relative; overflow: hidden; background: #000; }
.stack img { display: block; width: 100%; height: auto; }
.stack .over { position: absolute; inset: 0; height: 100%; clip-path: inset(0 0 0 var(--at)); }
.stack::after { content: ""; position: absolute; top: 0; bottom: 0; left: var(--at); width: 3px; margin-left: -1.5px;
  background: #fff; box-shadow: 0 0 0 1px #000; }
.attention { display: none !important; }
:root:has(#show-attention:checked) .attention { display: block !important; }
:root:has(#show-attention:checked) .map { display: none !important; }
:root:has(#show-cut:checked) .map { mix-blend-mode: multiply; }
.ends { display: flex; justify-content: space-between; font-size: .85rem; color: var(--soft); }
input[type=range] { width: 100%; height: 2rem; margin: .2rem 0 0; cursor: ew-resize; touch-action: pan-y; }
figcaption { font-size: .9rem; }
@media print { figure { break-inside: avoid; } }
"""

SCRIPT = """
for (const slider of document.querySelectorAll("input[type=range]")) {
  const figure = slider.closest("figure");
  const show = () => {
    figure.style.setProperty("--at", slider.value + "%");
    slider.setAttribute("aria-valuetext", slider.value + " % photo");
  };
  slider.addEventListener("input", show);
  show();
}
"""

INTRODUCTION = (
    "Left of the line is the photo, right of it what was found: white is what the group shares. Move a slider with a "
    "finger, the mouse, or the arrow keys."
)


class Gallery:
    """A gallery that is being written, group by group; make one with `open_gallery`."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file

    def add(self, group: ShownGroup) -> None:
        """Write a group's photos, each with its map and its attention."""
        shown = len(group.photos)
        size = "one photo" if group.count == 1 else f"{group.count} photos"
        if shown < group.count:
            size += f", the first {shown} of them shown; maps and attention are of all"
        self._file.write(f"<section>\n<h2>{escape(group.name)}</h2>\n<p class=note>{size}</p>\n<div class=grid>\n")
        for photo in group.photos:
            self._file.write(_card(photo))
        self._file.write("</div>\n</section>\n")


@contextmanager
def open_gallery(path: Path, title: str) -> Iterator[Gallery]:
    """Write a gallery to `path`, which takes its place when the block ends well.

    The page allows itself no requests (its Content-Security-Policy), and runs no script but its own, whatever photos
    are called.

    Raises
    ------
    UsageError
        If the file cannot be written.
    """
    with (
        replacing(path) as temporary,
        cannot_fill(temporary, path),
        temporary.open("w", encoding="utf-8", errors="replace") as file,
    ):
        file.write(_head(title))
        yield Gallery(file)
        file.write(f"</main>\n<script>{SCRIPT}</script>\n</body>\n</html>\n")


def _head(title: str) -> str:
    policy = f"default-src 'none'; img-src data:; style-src {_hash(STYLE)}; script-src {_hash(SCRIPT)}; "
    policy += "base-uri 'none'; form-action 'none'"
    views = (
        ("map", "map"),
        ("attention", "attention of the network, yellow where it is high"),
        ("cut", "photo, dark where nothing was found"),
    )
    choices = "".join(
        f'<label><input type="radio" name="view" id="show-{key}"{" checked" if key == "map" else ""}> {label}</label>\n'
        for key, label in views
    )
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="referrer" content="no-referrer">\n<link rel="icon" href="data:,">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        f"<header>\n<h1>{escape(title)}</h1>\n<p>{INTRODUCTION}</p>\n"
        "<noscript><p>The sliders need JavaScript.</p></noscript>\n"
        f"<fieldset>\n<legend>right of the line</legend>\n{choices}</fieldset>\n</header>\n<main>\n"
    )


def _card(photo: ShownPhoto) -> str:
    name = escape(photo.path.name)
    height, width = photo.picture.shape[:2]
    rows, columns = photo.attention.shape
    attention = upsample_attention(relative_attention(photo.attention), rows * ATTENTION_SIDE, columns * ATTENTION_SIDE)
    size = f'width="{width}" height="{height}"'
    return (
        f'<figure>\n<div class="stack">\n<img {size} alt="photo {name}" src="{data_uri(photo.picture)}">\n'
        f'<img {size} class="over map" alt="map of {name}" src="{data_uri(to_bytes(photo.saliency))}">\n'
        f'<img {size} class="over attention" alt="attention in {name}" src="{data_uri(heat(attention))}">\n</div>\n'
        f'<input type="range" min="0" max="100" value="50" step="5" aria-label="how much of the photo {name} is shown, '
        f'the rest being its map">\n'
        f'<div class="ends" aria-hidden="true"><span>photo</span><span>result</span></div>\n'
        f"<figcaption>{name}</figcaption>\n</figure>\n"
    )


def _hash(content: str) -> str:
    """How a Content-Security-Policy names what it allows."""
    digest = hashlib.sha256(content.encode("utf-8")).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"
