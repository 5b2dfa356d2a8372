"""The detector: photos of a group in, one co-saliency map per photo out."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from gconet.runtime.bundle import Bundle, open_bundle
from gconet.runtime.errors import PhotoError, UsageError
from gconet.runtime.lookahead import ahead
from gconet.runtime.photos import read_photo
from gconet.runtime.preprocess import SIZE_STEP, FloatArray, Photo, resize_map, to_input
from gconet.runtime.session import DeviceSession, Session, open_session

if TYPE_CHECKING:
    from gconet.runtime.device_arrays import DeviceArray

# Of the affinity between all C5 pixels of a group, in float32: half of a common machine's 16 GB, and 228 photos at 224
# pixels. An engine that runs out of memory may take the process with it, so larger ones are not tried.
MAX_AFFINITY_BYTES = 8 * 10**9


class Detector:
    """A loaded bundle. Make one with `load`; calls from several threads are safe."""

    def __init__(self, bundle: Bundle, session: Session) -> None:
        self.bundle = bundle
        self.session = session

    def detect(self, photos: Sequence[str | os.PathLike[str] | Photo]) -> list[FloatArray]:
        """Find the object that a group of photos shares.

        Parameters
        ----------
        photos : paths, or (H, W, 3) uint8 RGB arrays, each of its own size; at least one. Plans take up to the bundle's
            `max_group`; other engines take more, as far as memory goes (`check_count`), but were verified up to there.

        Returns
        -------
        One (H, W) float32 map in [0, 1] per photo, at the photo's own size; 1 is the shared object.

        Raises
        ------
        PhotoError
            If a photo cannot be read or is no such array.
        UsageError
            If there are no photos, one path in place of a list, or more photos than the engine takes.
        TargetError
            If the engine fails, as when memory runs out.
        """
        return _finish(self._infer(self._prepare(photos)))

    def detect_groups(self, groups: Iterable[Sequence[str | os.PathLike[str] | Photo]]) -> Iterator[list[FloatArray]]:
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
        return map(_finish, ahead(self._infer, ahead(self._prepare, groups)))

    def _prepare(self, photos: Sequence[str | os.PathLike[str] | Photo]) -> _Prepared:
        if isinstance(photos, str | os.PathLike):
            raise UsageError(f"a group is a list of photos, got the one path {photos}")
        self.check_count(len(photos))
        shapes: list[tuple[int, int]] = []

        def arrays() -> Iterator[Photo]:
            for index, photo in enumerate(photos):
                array = _as_array(photo, index)
                shapes.append((array.shape[0], array.shape[1]))
                yield array

        return _Prepared(to_input(arrays(), self.bundle.manifest.preprocessing, len(photos)), shapes)

    def _infer(self, group: _Prepared) -> _Prepared:
        return _Prepared(self.session.infer({"images": group.values})["maps"], group.shapes)

    def detect_on_device(self, images: object, maps: object | None = None) -> DeviceArray:
        """Run a group whose network input lies on the GPU already; nothing is copied, and nothing waited for.

        Parameters
        ----------
        images : (N, 3, S, S) float32, C-contiguous, on the GPU of `load`'s device: what `preprocess.to_input` makes of
            N photos, S being the size there. A tensor of PyTorch or CuPy, a PyCUDA `GPUArray` in the primary context,
            or anything else with DLPack or `__cuda_array_interface__`. Leave it unchanged until the maps are computed.
        maps : such an array of (N, 1, S, S) to write to; None for new memory. Giving the same arrays again is fastest.

        Returns
        -------
        (N, 1, S, S) float32 in [0, 1], at the network's size, perhaps still being computed: `torch.from_dlpack`,
        `cupy.from_dlpack` and others wait for it on the GPU; see `DeviceArray`.

        Raises
        ------
        UsageError
            If an array is not as above, the group too large, or the engine runs on the CPU.
        TargetError
            If the engine fails.
        """
        if not isinstance(self.session, DeviceSession):
            raise UsageError(
                f"{self.bundle.folder} runs on the CPU: build it for a GPU, `gconet build --target tensorrt`"
            )
        outputs = None if maps is None else {"maps": maps}
        return self.session.infer_device({"images": images}, outputs)["maps"]

    def check_count(self, count: int) -> None:
        """Raise UsageError if a group of `count` photos is empty or more than the plan, or memory, has room for."""
        if count < 1:
            raise UsageError("a group needs at least one photo")
        limit = self.session.max_group
        if limit is not None:
            if count > limit:
                raise UsageError(
                    f"a group of {count} photos: {self.bundle.folder} takes up to {limit}; "
                    f"for more, build with `--max-group {count}`"
                )
            return
        pixels = (self.bundle.manifest.preprocessing.size // SIZE_STEP) ** 2  # of one photo's C5
        needed = (count * pixels) ** 2 * np.dtype(np.float32).itemsize
        if needed > MAX_AFFINITY_BYTES:
            fitting = math.isqrt(MAX_AFFINITY_BYTES // np.dtype(np.float32).itemsize) // pixels
            raise UsageError(
                f"a group of {count} photos needs about {needed / 1e9:.0f} GB of memory for its affinity alone: "
                f"split it into groups of at most {fitting}"
            )


def load(
    bundle: str | os.PathLike[str],
    device: str = "auto",
    threads: int | None = None,
    *,
    cuda_graphs: bool = True,
    provider: str = "cuda",
) -> Detector:
    """Open a bundle and load its engine.

    Parameters
    ----------
    bundle : folder made by `gconet build`.
    device : "cpu", "cuda" or "cuda:1"; "auto" is where the build measured it: the CPU for targets openvino and
        onnxruntime, the first GPU for tensorrt and tensorrt-rtx.
    threads : for CPU engines; None leaves the choice to the engine.
    cuda_graphs : for TensorRT: launch repeated work as CUDA graphs.
    provider : for target onnxruntime on a GPU: "cuda" or "tensorrt", which compiles at the first call, for minutes.

    Raises
    ------
    BundleError
        If the bundle is missing, altered or damaged.
    TargetError
        If this machine cannot run its engine.
    UsageError
        If `threads` is below 1, or there is no such provider.
    """
    if threads is not None and threads < 1:
        raise UsageError(f"threads must be at least 1, got {threads}")
    opened = open_bundle(bundle)
    return Detector(opened, open_session(opened, device, threads, cuda_graphs, provider))


class _Prepared(NamedTuple):
    """Network input or output of a group, (N, channels, S, S), and the height and width of its photos."""

    values: FloatArray
    shapes: Sequence[tuple[int, int]]


def _finish(group: _Prepared) -> list[FloatArray]:
    return [resize_map(saliency[0], *shape) for saliency, shape in zip(group.values, group.shapes, strict=True)]


def _as_array(photo: str | os.PathLike[str] | Photo, index: int) -> Photo:
    if not isinstance(photo, np.ndarray):
        return read_photo(photo)
    if photo.dtype != np.uint8 or photo.ndim != 3 or photo.shape[2] != 3 or not photo.size:
        raise PhotoError(f"photo {index} is {photo.dtype} {photo.shape}: an (H, W, 3) uint8 RGB array is wanted")
    return photo
