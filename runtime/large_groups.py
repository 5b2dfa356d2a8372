"""Groups of any size in flat memory: encode in blocks, find the consensus, then draw in blocks.

What the second pass needs of the first is kept in temporary files, and of the encoder only its first block, a sixteenth
of the network, is computed twice. The answer is that of one call, up to rounding.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from gconet.runtime.agreement import Agreement
from gconet.runtime.bundle import Bundle
from gconet.runtime.encoded_group import EncodedGroup, block_size, blocks, graph_session, run_padded
from gconet.runtime.errors import UsageError
from gconet.runtime.lookahead import ahead
from gconet.runtime.manifest import Manifest
from gconet.runtime.preprocess import SIZE_STEP, FloatArray, Photo, Preprocessing, to_input
from gconet.runtime.session import GraphSession, Session

# Above this many pixels of network input, 16 photos at 224, one call takes more memory than it saves time.
ONE_CALL_PIXELS = 16 * 224**2

# Of the affinity between all C5 pixels of a group, in float32: half of a common machine's 16 GB, and 228 photos at 224
# pixels. An engine that runs out of memory may take the process with it, so larger ones are not tried in one call.
MAX_AFFINITY_BYTES = 8 * 10**9

# Blocks of photos, 26 MB at 224 pixels in float32, that stay in memory while those before them are read.
COMPARED_BLOCKS = 4

Progress = Callable[[str, int, int], object]  # what is being done ("encode", "draw"), photos done, photos in all


def silent(_stage: str, _done: int, _total: int) -> None:
    """Progress nobody watches."""


def one_call_limit(size: int) -> int:
    """The largest group that is done in one call, for network input of `size`×`size`."""
    return max(1, ONE_CALL_PIXELS // size**2)


def check_one_call(size: int, count: int) -> None:
    """Raise UsageError where the affinity of `count` photos would not fit into memory."""
    pixels, item = (size // SIZE_STEP) ** 2, np.dtype(np.float32).itemsize  # pixels of one photo's C5
    needed = (count * pixels) ** 2 * item
    if needed > MAX_AFFINITY_BYTES:
        raise UsageError(
            f"a group of {count} photos needs about {needed / 1e9:.0f} GB of memory for its affinity alone: build the "
            "bundle again for target openvino or onnxruntime, which do groups of any size in blocks, or split it into "
            f"groups of at most {math.isqrt(MAX_AFFINITY_BYTES // item) // pixels}"
        )


def streams(session: Session, size: int, count: int) -> bool:
    """Whether a group of `count` photos is done in blocks, for network input of `size`×`size`."""
    return isinstance(session, GraphSession) and "draw" in session.graphs and count > one_call_limit(size)


def check_count(bundle: Bundle, session: Session, count: int) -> None:
    """Raise UsageError if a group of `count` photos is empty or more than the plan, or memory, has room for."""
    if count < 1:
        raise UsageError("a group needs at least one photo")
    size, limit = bundle.manifest.preprocessing.size, session.max_group
    if streams(session, size, count):
        return
    if limit is None:
        check_one_call(size, count)
    elif count > limit:
        raise UsageError(
            f"a group of {count} photos: {bundle.folder} takes up to {limit}; "
            f"for more, build with `--max-group {count}`"
        )


def input_blocks(photos: Iterable[Photo], count: int, preprocessing: Preprocessing) -> Iterator[FloatArray]:
    """Network input of `count` photos, a block at a time; the next one is read while the last is used."""
    source = iter(photos)
    lengths = [stop - start for start, stop in blocks(count, block_size(preprocessing.size))]
    return ahead(lambda length: to_input((next(source) for _ in range(length)), preprocessing, length), lengths)


def infer_group(session: Session, manifest: Manifest, images: FloatArray) -> FloatArray:
    """Maps (N, 1, S, S) of network input (N, 3, S, S), as `Detector.detect` computes them: large groups in blocks."""
    count, size = len(images), manifest.preprocessing.size
    if not streams(session, size, count):
        return session.infer({"images": images})["maps"]
    inputs = (images[start:stop] for start, stop in blocks(count, block_size(size)))
    return np.stack(list(stream_maps(session, manifest, inputs, count)))[:, None]


def stream_maps(
    session: Session, manifest: Manifest, inputs: Iterable[FloatArray], count: int, progress: Progress = silent
) -> Iterator[FloatArray]:
    """Maps (S, S) of a group of `count` photos, in order.

    Parameters
    ----------
    inputs : network input in blocks, as `input_blocks` makes them.

    Raises
    ------
    UsageError
        If there is no room on the disk for the features.
    TargetError
        If the engine fails; and errors of reading photos pass through.
    """
    group = EncodedGroup(session, manifest, drawable=True)
    agreement = Agreement(group)
    for number, images in enumerate(inputs, 1):
        group.append(images)
        if number % COMPARED_BLOCKS == 0:
            agreement.compare_new()
        progress("encode", len(group), count)
    agreement.compare_new()
    consensus = agreement.consensus()
    drawn = ahead(lambda block: group.draw(*block, consensus), blocks(count, group.block))
    for done, saliency in enumerate((photo for block in drawn for photo in block), 1):
        yield saliency
        progress("draw", done, count)


def segment_maps(session: Session, inputs: Iterable[FloatArray], consensus: FloatArray) -> Iterator[FloatArray]:
    """Maps (S, S) of photos, each against the consensus (C,), whatever the others show; `inputs` as above."""
    graphs, kernel = graph_session(session, "segment"), consensus.reshape(1, -1, 1, 1)
    for images in inputs:
        length = {"images": block_size(images.shape[-1])}
        yield from run_padded(graphs, "segment", {"images": images, "consensus": kernel}, length)["maps"][
            : len(images), 0
        ]
