"""Thumbnails by co-location: crops of the asked shape around what a group's photos share (paper, section 6).

>>> import gconet.runtime as gr
>>> detector = gr.load("build/gconet.gconet")
>>> shape = gr.thumbnail.Shape(4, 3, 256)           # `gr.thumbnail` is this module: 4:3, 256×192 pixels
>>> locations = [gr.thumbnail.locate(saliency) for saliency in detector.detect(photos)]
>>> frames = gr.thumbnail.frame_group(locations, shape)
>>> pictures = [gr.thumbnail.thumbnail(photo, frame) for photo, frame in zip(photos, frames) if frame]

A frame is None where nothing is co-salient; `central_frame` gives the middle of such a photo.
Needs OpenCV: `pip install 'gconet-deploy[pictures]'`.
"""

from __future__ import annotations

from gconet.runtime.co_location import Box, Found, Location, locate
from gconet.runtime.framing import FITS, Fit, Frame, Shape, central_frame, frame_group
from gconet.runtime.thumbnail_pictures import overlay, thumbnail

__all__ = [
    "FITS",
    "Box",
    "Fit",
    "Found",
    "Frame",
    "Location",
    "Shape",
    "central_frame",
    "frame_group",
    "locate",
    "overlay",
    "thumbnail",
]
