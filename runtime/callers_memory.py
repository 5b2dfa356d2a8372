"""A detector's ways to run on memory of the caller's: the GPU's, and the host's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gconet.runtime.bundle import Bundle
from gconet.runtime.errors import UsageError
from gconet.runtime.session import DeviceSession, Session

if TYPE_CHECKING:
    from gconet.runtime.device_arrays import DeviceArray


class CallersMemory:
    """Network input to maps at the network's size, where the caller has them; a part of `Detector`."""

    bundle: Bundle
    session: Session

    def detect_on_device(self, images: object, maps: object | None = None) -> DeviceArray:
        """Run a group whose network input lies on the GPU already; nothing is copied, and nothing waited for.

        Parameters
        ----------
        images : (N, 3, S, S) float32, C-contiguous, on the GPU of `load`'s device: what `preprocess.to_input` makes of
            N photos, S being the size there. A tensor of PyTorch or CuPy, a PyCUDA `GPUArray` in the primary context,
            or anything else with DLPack or `__cuda_array_interface__`. Leave it unchanged until the maps are computed.
        maps : such an array of (N, 1, S, S) to write to, that shares no memory with `images`; None for new memory.
            Giving the same arrays again is fastest.

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

    def detect_into(self, images: object, maps: object) -> None:
        """Run a group from network input to maps at the network's size, both in memory of the caller's.

        The engine reads and writes the caller's memory where it lies (of a plan: copies by way of pinned memory). After
        the first call with as many photos, a call allocates nothing; of a large group, done in blocks, this does not
        hold. Nothing is kept after the call. Other threads run meanwhile, the engine works outside the GIL; calls from
        several threads are safe, each with maps of its own.

        Parameters
        ----------
        images : (N, 3, S, S) float32, C-contiguous, as `preprocess.to_input` makes them: a numpy array, one of anybody
            who speaks DLPack on the host, such as a PyTorch tensor, or a `HostBuffer` of an address. Not written to.
        maps : (N, 1, S, S) such an array, writable, that shares no memory with `images`. Values become [0, 1], 1 is the
            shared object; `preprocess.resize_map` brings them to a photo's size. On an error they mean nothing.

        Raises
        ------
        UsageError
            If an array is not as above, or `images` not finite; or as for `detect`.
        TargetError
            If the engine fails.
        """
        from gconet.runtime.in_place import detect_into  # here, as are other ways that few programs go

        detect_into(self.bundle, self.session, images, maps)

    def segment_into(self, images: object, consensus: object, maps: object) -> None:
        """The same as `detect_into` with a known consensus (C,), each photo by itself.

        Raises
        ------
        BundleError
            If the bundle lacks the graph for it: it is old, or of a TensorRT plan.
        UsageError, TargetError
            As for `detect_into`.
        """
        from gconet.runtime.in_place import segment_into

        segment_into(self.bundle, self.session, images, consensus, maps)
