"""The detector: photos of a group in, one co-saliency map per photo out."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterable, Iterator
from functools import partial

import numpy as np

from gconet.runtime.bundle import Bundle, open_bundle
from gconet.runtime.callers_memory import CallersMemory
from gconet.runtime.consensus_builder import ConsensusBuilder
from gconet.runtime.encoded_group import graph_session
from gconet.runtime.errors import UsageError
from gconet.runtime.large_groups import (
    Progress,
    check_count,
    input_blocks,
    segment_maps,
    silent,
    streams,
)
from gconet.runtime.lookahead import ahead
from gconet.runtime.prepared_group import Photos, PreparedGroup, arrays, check_list, finish, infer
from gconet.runtime.preprocess import SIZE_STEP, FloatArray, resize_map, to_input
from gconet.runtime.session import Session, open_session

LOG = logging.getLogger(__name__)


class Detector(CallersMemory):
    """A loaded bundle. Make one with `load`; calls from several threads are safe."""

    def __init__(self, bundle: Bundle, session: Session) -> None:
        self.bundle = bundle
        self.session = session

    def detect(self, photos: Photos) -> list[FloatArray]:
        """Find the object that a group of photos shares.

        Small groups are done in one call, large ones in blocks and flat memory (`stream` has flat memory for the maps
        too); the answer is the same.

        Parameters
        ----------
        photos : paths, or (H, W, 3) uint8 RGB arrays, each of its own size; at least one. TensorRT plans take up to the
            bundle's `max_group`; other engines take any number, verified up to there.

        Returns
        -------
        One (H, W) float32 map in [0, 1] per photo, at the photo's own size; 1 is the shared object.

        Raises
        ------
        PhotoError
            If a photo cannot be read or is no such array.
        UsageError
            If there are no photos, one path in place of a list, or more photos than the engine takes; or no room on the
            disk for the features of a large group.
        TargetError
            If the engine fails, as when memory runs out.
        """
        return list(self.stream(photos))

    def stream(self, photos: Photos, progress: Progress = silent) -> Iterator[FloatArray]:
        """The maps of one group, one by one, so that any number of photos is done in flat memory; see `detect`.

        Parameters
        ----------
        progress : of a large group, called as progress("encode" or "draw", photos done, photos in all).
        """
        return finish(self.bundle, self.session, infer(self.session, self._prepare(photos)), progress)

    def detect_groups(self, groups: Iterable[Photos]) -> Iterator[list[FloatArray]]:
        """Maps of many groups, one after the other, faster than a loop over `detect`.

        The next group's photos are read and resized, and its maps computed, while the caller uses the last one's. At
        most three groups are in memory at once, their photos only while they are read.

        Parameters
        ----------
        groups : each as for `detect`.

        Yields
        ------
        What `detect` returns of each group, in order; errors are raised as there, in their group's turn.
        """
        return map(list, self.stream_groups(groups))

    def stream_groups(self, groups: Iterable[Photos], progress: Progress = silent) -> Iterator[Iterator[FloatArray]]:
        """The same with each group's maps one by one, as `stream` gives them; use them up before the next group's."""
        computed = ahead(partial(infer, self.session), ahead(self._prepare, groups))
        return (finish(self.bundle, self.session, group, progress) for group in computed)

    def consensus(self, photos: Photos) -> FloatArray:
        """What a group shares, to be found in other photos by `segment`, and kept by `save_consensus`.

        Returns
        -------
        (C,) float32, 512 numbers of the paper's network.

        Raises
        ------
        BundleError
            If the bundle lacks the graph for it: it is old, or of a TensorRT plan.
        PhotoError, UsageError, TargetError
            As for `detect`.
        """
        return self.consensus_and_attention(photos)[0]

    def attention(self, photos: Photos) -> FloatArray:
        """Where the consensus of a group comes from: the GAM's attention [3.2].

        Returns
        -------
        (N, h, w) float32, 14×14 at 224 pixels, each photo's summing to 1; uniform in a network without GAM. Errors are
        those of `consensus`.
        """
        return self.consensus_and_attention(photos)[1]

    def segment(self, photos: Photos, consensus: FloatArray) -> list[FloatArray]:
        """Find a known consensus in photos, each by itself: what else is in the list does not matter.

        Parameters
        ----------
        photos : as for `detect`; none have no maps.
        consensus : (C,), of a detector of the same network.

        Returns
        -------
        Maps as those of `detect`.

        Raises
        ------
        UsageError
            If the consensus has another length or is not finite, and as for `consensus`.
        BundleError, PhotoError, TargetError
            As for `consensus`.
        """
        return list(self.segment_stream(photos, consensus))

    def segment_stream(self, photos: Photos, consensus: FloatArray) -> Iterator[FloatArray]:
        """The maps of `segment` one by one, in flat memory; raises UsageError at once, else as for `segment`."""
        check_list(photos)
        consensus = np.asarray(consensus, np.float32)  # of which engines take no other kind
        if consensus.shape != (self.channels,):
            raise UsageError(f"a consensus of this network has shape ({self.channels},), not {consensus.shape}")
        if not np.isfinite(consensus).all():
            raise UsageError("the consensus has numbers that are not finite: make it again from its photos")
        shapes: list[tuple[int, int]] = []
        inputs = input_blocks(arrays(photos, shapes), len(photos), self.bundle.manifest.preprocessing)
        found = segment_maps(self.session, inputs, consensus)
        return (resize_map(saliency, *shapes[index]) for index, saliency in enumerate(found))

    @property
    def channels(self) -> int:
        """Numbers in a consensus of this network: 512 in the paper's."""
        return self.bundle.manifest.channels

    def streams(self, count: int) -> bool:
        """Whether a group of `count` photos is done in blocks."""
        return streams(self.session, self.bundle.manifest.preprocessing.size, count)

    def consensus_and_attention(self, photos: Photos) -> tuple[FloatArray, FloatArray]:
        """What `consensus` and `attention` return, computed once.

        Raises
        ------
        BundleError, PhotoError, UsageError, TargetError
            As for `consensus`.
        """
        check_list(photos)
        if not len(photos):
            raise UsageError("a group needs at least one photo")
        preprocessing = self.bundle.manifest.preprocessing
        session = graph_session(self.session, "consensus")
        if self.streams(len(photos)):
            builder = ConsensusBuilder(self)
            builder.add(*photos)
            return builder.consensus(), builder.attention()
        outputs = session.run("consensus", {"images": to_input(arrays(photos, []), preprocessing, len(photos))})
        side = preprocessing.size // SIZE_STEP
        uniform = np.full((len(photos), side, side), 1 / side**2, np.float32)  # of a network without GAM
        attention = outputs["attention"][:, 0] if "attention" in outputs else uniform
        return outputs["consensus"].reshape(-1), attention

    def _prepare(self, photos: Photos) -> PreparedGroup:
        check_list(photos)
        self.check_count(len(photos))
        if self.streams(len(photos)):
            return PreparedGroup(photos, None, [])
        shapes: list[tuple[int, int]] = []
        start = time.perf_counter()
        values = to_input(arrays(photos, shapes), self.bundle.manifest.preprocessing, len(photos))
        LOG.info("group of %d: read and resized in %.0f ms", len(photos), 1e3 * (time.perf_counter() - start))
        return PreparedGroup(photos, values, shapes)

    def check_count(self, count: int) -> None:
        """Raise UsageError if a group of `count` photos is empty or more than the plan, or memory, has room for."""
        check_count(self.bundle, self.session, count)


def load(
    bundle: str | os.PathLike[str],
    device: str = "auto",
    threads: int | None = None,
    *,
    cuda_graphs: bool = True,
    provider: str = "cuda",
    require_signature: str | os.PathLike[str] | None = None,
) -> Detector:
    """Open a bundle and load its engine.

    Parameters
    ----------
    bundle : folder made by `gconet build`.
    device : "cpu", "cuda" or "cuda:1"; "auto" is where the build measured it: the CPU for targets openvino and
        onnxruntime, the first GPU for tensorrt and tensorrt-rtx.
    threads : for CPU engines; None leaves the choice to the engine.
    cuda_graphs : for TensorRT, and onnxruntime with provider "cuda": launch repeated work as CUDA graphs. ONNX Runtime
        makes one at the first call for each of the first 4 group sizes; no other thread of the process may allocate
        or free on the GPU just then, by whatever library, `maps.numpy()` included.
    provider : for target onnxruntime on a GPU: "cuda" or "tensorrt", which compiles at the first call, for minutes.
    require_signature : public key in PEM whose owner must have signed the bundle, see `open_bundle`; None asks for no
        signature.

    Raises
    ------
    BundleError
        If the bundle is missing, altered or damaged, or not signed by the owner of `require_signature`.
    TargetError
        If this machine cannot run its engine, or check the signature.
    UsageError
        If `threads` is below 1, there is no such provider, or `require_signature` is no public key.
    """
    if threads is not None and threads < 1:
        raise UsageError(f"threads must be at least 1, got {threads}")
    opened = open_bundle(bundle, require_signature)
    return Detector(opened, open_session(opened, device, threads, cuda_graphs, provider))
