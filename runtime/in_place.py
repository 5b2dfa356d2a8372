"""Network input to maps in memory of the caller's, for programs that allocate everything once."""

from __future__ import annotations

import numpy as np

from gconet.runtime.bundle import Bundle
from gconet.runtime.encoded_group import block_size, blocks, graph_session
from gconet.runtime.host_arrays import HostView, check_apart, check_finite, take_in, take_out
from gconet.runtime.large_groups import check_count, stream_maps, streams
from gconet.runtime.preprocess import FloatArray
from gconet.runtime.session import DETECT, IntoSession, Session, Tensors


def detect_into(bundle: Bundle, session: Session, images: object, maps: object) -> None:
    """See `Detector.detect_into`."""
    inputs, outputs = _take(bundle, images, maps)
    values, count, size = inputs.array, len(inputs.array), bundle.manifest.preprocessing.size
    check_count(bundle, session, count)
    if not streams(session, size, count):
        _run(session, DETECT, {"images": values}, outputs.array)
        return
    parts = (values[start:stop] for start, stop in blocks(count, block_size(size)))
    for index, saliency in enumerate(stream_maps(session, bundle.manifest, parts, count)):
        outputs.array[index, 0] = saliency


def segment_into(bundle: Bundle, session: Session, images: object, consensus: object, maps: object) -> None:
    """See `Detector.segment_into`."""
    inputs, outputs = _take(bundle, images, maps)
    shared = take_in(consensus, "consensus", (bundle.manifest.channels,))
    check_finite(shared, "consensus")
    check_apart(shared, "consensus", outputs, "maps")
    graphs, kernel = graph_session(session, "segment"), shared.array.reshape(1, -1, 1, 1)
    for start, stop in blocks(len(inputs.array), block_size(bundle.manifest.preprocessing.size)):
        tensors = {"images": inputs.array[start:stop], "consensus": kernel}
        _run(graphs, "segment", tensors, outputs.array[start:stop])


def _take(bundle: Bundle, images: object, maps: object) -> tuple[HostView, HostView]:
    """The caller's arrays, checked; no memory of the size of either is needed."""
    size = bundle.manifest.preprocessing.size
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
