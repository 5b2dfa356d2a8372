"""Findings as a part of the demo page: HTML with all pictures inside, names escaped."""

from __future__ import annotations

import io
from collections.abc import Sequence
from html import escape

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gconet.runtime.composition import rgba
from gconet.runtime.demo_group import SHAPES, Change, Findings, Seen
from gconet.runtime.gallery import ATTENTION_SIDE
from gconet.runtime.map_files import counted
from gconet.runtime.preprocess import to_bytes
from gconet.runtime.show_pictures import (
    data_uri,
    encoded_uri,
    heat,
    overlay,
    relative_attention,
    upsample_attention,
)

STYLE = """
.gconet-photo { margin: 0 0 1rem; padding: .7rem; border: 1px solid var(--border-color-primary); border-radius: .5rem;
  background: var(--background-fill-secondary); }
.gconet-photo h3 { margin: 0 0 .5rem; font-size: 1rem; overflow-wrap: anywhere; }
.gconet-photo h3 small { font-weight: normal; opacity: .8; }
.gconet-views { display: grid; grid-template-columns: repeat(auto-fill, minmax(7.2rem, 1fr)); gap: .6rem; }
.gconet-views figure { margin: 0; }
.gconet-views img { display: block; width: 100%; height: auto; margin: 0; border-radius: 2px;
  outline: 1px solid var(--border-color-primary); }
.gconet-views img.cutout { background: repeating-conic-gradient(#b8b8b8 0 25%, #fff 0 50%) 0 / 16px 16px; }
.gconet-views figcaption { font-size: .85rem; opacity: .8; }
.gconet-messages { margin: 0; padding: .6rem .8rem; border: 2px solid var(--body-text-color); border-radius: .5rem;
  overflow-wrap: anywhere; }
.gconet-messages p { margin: .15rem 0; }
.gconet-change { overflow-x: auto; }
.gconet-change table { border-collapse: collapse; }
#change .gconet-change td, #change .gconet-change th { padding: .2rem .7rem; text-align: left; overflow-wrap: anywhere;
  border: 1px solid var(--border-color-primary); }
@media (max-width: 30rem) { .gconet-views { grid-template-columns: repeat(2, 1fr); } }
"""


def messages_html(lines: Sequence[str]) -> str:
    """What has to be said, announced by screen readers when it appears; nothing of no lines."""
    if not lines:
        return ""
    body = "".join(f"<p>{escape(line)}</p>" for line in lines)
    return f'<div class="gconet-messages" role="alert">{body}</div>'


def change_html(findings: Findings, change: Change | None) -> str:
    """How the consensus of the group, and the maps of its photos, differ from those of the group before."""
    count = len(findings.seen)
    photos = counted(count, "photo")
    if change is None:
        alone = " Alone, a photo shares nothing: its map shows what stands out." if count == 1 else ""
        return f"<p>A group of {photos}.{alone} Untick a photo to see what the others share without it.</p>"
    rows = sorted(change.maps.items(), key=lambda row: -row[1])
    table = "".join(f"<tr><td>{escape(label)}</td><td>{moved:.3f}</td></tr>" for label, moved in rows)
    header = "<tr><th>photo</th><th>mean change of its map (of 1)</th></tr>"
    return (
        f"<p><strong>Consensus: cosine {change.cosine:.3f}</strong> to that of the group before, which had "
        f"{change.before}; now {photos}. 1 is no change.</p>"
        + (f'<div class="gconet-change"><table>{header}{table}</table></div>' if rows else "")
    )


def findings_html(findings: Findings) -> str:
    """Every photo with its attention, map, overlay, cut-out and thumbnails."""
    return "".join(_photo(one) for one in findings.seen)


def _photo(one: Seen) -> str:
    name = escape(one.upload.label)
    rows, columns = one.attention.shape
    attention = upsample_attention(relative_attention(one.attention), rows * ATTENTION_SIDE, columns * ATTENTION_SIDE)
    height, width = one.picture.shape[:2]
    size = f'width="{width}" height="{height}"'
    views = [
        _view("photo", name, size, data_uri(one.picture)),
        _view("attention", name, f'{size} style="aspect-ratio: {width} / {height}"', data_uri(heat(attention))),
        _view("map", name, size, data_uri(to_bytes(one.saliency))),
        _view("overlay", name, size, data_uri(overlay(one.picture, one.saliency))),
    ]
    if one.alpha is not None:
        views.append(_view("cut-out", name, f'{size} class="cutout"', _transparent(rgba(one.picture, one.alpha))))
    for shape, picture in zip(SHAPES, one.thumbnails, strict=False):
        thumbnail_size = f'width="{picture.shape[1]}" height="{picture.shape[0]}"'
        views.append(_view(f"thumbnail {shape.across}:{shape.down}", name, thumbnail_size, data_uri(picture)))
    found = "" if one.alpha is not None else ": nothing co-salient found"
    return (
        f'<section class="gconet-photo"><h3>{name}{found} <small>agreement with the group {one.agreement:.3f}</small>'
        f'</h3><div class="gconet-views">{"".join(views)}</div></section>'
    )


def _view(kind: str, name: str, attributes: str, uri: str) -> str:
    return f'<figure><img {attributes} alt="{kind} of {name}" src="{uri}"><figcaption>{kind}</figcaption></figure>'


def _transparent(picture: NDArray[np.uint8]) -> str:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="WEBP", quality=85)
    return encoded_uri(buffer.getvalue(), "image/webp")
