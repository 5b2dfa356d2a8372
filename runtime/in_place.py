"""Network input to maps in memory of the caller's, for programs that allocate everything once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gconet.runtime.encoded_group import block_size, blocks, graph_session
from gconet.runtime.host_arrays import HostView, check_apart, check_finite, take_in, take_out
from gconet.runtime.large_groups import stream_maps
from gconet.runtime.preprocess import FloatArray
from gconet.runtime.session import DETECT, IntoSession, Session, Tensors

if TYPE_CHECKING:
    from gconet.runtime.detector import Detector


def detect_into(detector: Detector, images: object, maps: object) -> None:
    """See `Detector.detect_into`."""
    inputs, outputs = _take(detector, images, maps)
    values, count = inputs.array, len(inputs.array)
    detector.check_count(count)
    manifest = detector.bundle.manifest
    if not detector.streams(count):
        _run(detector.session, DETECT, {"images": values}, outputs.array)
        return
    parts = (values[start:stop] for start, stop in blocks(count, block_size(manifest.preprocessing.size)))
    for index, saliency in enumerate(stream_maps(detector.session, manifest, parts, count)):
        outputs.array[index, 0] = saliency


def segment_into(detector: Detector, images: object, consensus: object, maps: object) -> None:
    """See `Detector.segment_into`."""
    inputs, outputs = _take(detector, images, maps)
    shared = take_in(consensus, "consensus", (detector.channels,))
    check_finite(shared, "consensus")
    check_apart(shared, "consensus", outputs, "maps")
    session, kernel = graph_session(detector.session, "segment"), shared.array.reshape(1, -1, 1, 1)
    for start, stop in blocks(len(inputs.array), block_size(detector.bundle.manifest.preprocessing.size)):
        tensors = {"images": inputs.array[start:stop], "consensus": kernel}
        _run(session, "segment", tensors, outputs.array[start:stop])


def _take(detector: Detector, images: object, maps: object) -> tuple[HostView, HostView]:
    """The caller's arrays, checked; no memory of the size of either is needed."""
    size = detector.bundle.manifest.preprocessing.size
    inputs = take_in(images, "images", (None, 3, size, size))
    outputs = take_out(maps, "maps", (len(inputs.array), 1, size, size))
    check_apart(inputs, "images", outputs, "maps")
    check_finite(inputs, "images")
    return inputs, outputs


def _run(session: Session, graph: str, inputs: Tensors, maps: FloatArray) -> None:
    if isinstance(session, IntoSession):
        session.run_into(graph, inputs, {"maps": maps})
    else:  # one that wraps an engine's own, to look into it
        answer = session.infer(inputs) if graph == DETECT else graph_session(session, graph).run(graph, inputs)
        np.copyto(maps, answer["maps"])
