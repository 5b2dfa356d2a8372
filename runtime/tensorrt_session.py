"""TensorRT and TensorRT for RTX on an NVIDIA GPU."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping

import numpy as np

from gconet.runtime.bundle import Bundle
from gconet.runtime.cuda import DeviceMemory, Event, PinnedArray, Stream
from gconet.runtime.device_arrays import DeviceArray, ForeignArray, check_apart, take_in, take_out
from gconet.runtime.errors import BundleError, TargetError, UsageError
from gconet.runtime.preprocess import FloatArray
from gconet.runtime.session import DETECT, SessionOptions, Tensors
from gconet.runtime.tensorrt_engine import load_engine, open_gpu
from gconet.runtime.tensorrt_group import GroupRunner
from gconet.runtime.tensorrt_library import NAMES, Product
from gconet.runtime.tensorrt_profiles import choose_profile

GROUP_SIZES = 8  # kept ready; each has a context and a graph, and shares the working memory


class TensorRtSession:
    """Runs a bundle's plan on the primary context of a GPU.

    Calls from several threads are safe; they take turns, since each call can fill the GPU. Working memory is what the
    largest group so far needed, not the largest that the plan takes.

    Attributes
    ----------
    max_group : largest group the plan takes.
    device_name : of the GPU.
    """

    def __init__(self, bundle: Bundle, options: SessionOptions) -> None:
        product: Product = "tensorrt-rtx" if bundle.manifest.target == "tensorrt-rtx" else "tensorrt"
        try:
            self._device, trt = open_gpu(product, options.device_index)
        except TargetError as error:
            raise TargetError(
                f"{bundle.folder} cannot run here: a {product} plan needs an NVIDIA GPU and its libraries: {error}; "
                "for what this machine has, build with `gconet build --target auto`"
            ) from error
        self._engine = load_engine(bundle, product, self._device, trt)
        self._where, self._product = str(bundle.folder), NAMES[product]
        self._cuda_graphs = options.cuda_graphs
        self.max_group: int | None = max(profile.largest for profile in self._engine.profiles)
        self.device_name = self._device.name
        self._stream, self._capture_stream = Stream(self._device), Stream(self._device)
        self._runners: OrderedDict[int, GroupRunner] = OrderedDict()  # by group size
        self._scratch: DeviceMemory | None = None
        self._staging: _Staging | None = None
        self._in_use: list[tuple[Event, ForeignArray]] = []  # whose memory others must not be given yet
        self._lock = threading.Lock()

    def infer(self, inputs: Tensors) -> Tensors:
        """Run one group from and to the host's memory; see `Session`.

        Raises
        ------
        UsageError
            If the input is no float32 array of the plan's shape, or the group larger than it takes.
        TargetError
            If TensorRT or CUDA fail, as when memory runs out.
        """
        images = inputs["images"]
        count = self._check_images(images.shape, images.dtype)
        maps = np.empty((count, 1, *self._engine.image_shape[1:]), np.float32)
        self._infer(images, maps)
        return {"maps": maps}

    def run_into(self, graph: str, inputs: Tensors, outputs: Tensors) -> None:
        """Run one group from and to the caller's memory, by way of pinned memory; see `IntoSession`."""
        if graph != DETECT:
            raise BundleError(
                f"{self._where} has no graph `{graph}`: build it again, for target openvino or onnxruntime"
            )
        images = inputs["images"]
        self._check_images(images.shape, images.dtype)
        self._infer(images, outputs["maps"])

    def _infer(self, images: FloatArray, maps: FloatArray) -> None:
        count = len(images)
        with self._lock, self._device:
            try:
                runner = self._runner(count)
                staging = self._staging_for(count)
                np.copyto(staging.images.array[:count], images)
                self._stream.copy_to_device(staging.device_images.pointer, staging.images.pointer, images.nbytes)
                runner.run(staging.device_images.pointer, staging.device_maps.pointer, self._capture_stream)
                self._stream.copy_to_host(staging.maps.pointer, staging.device_maps.pointer, maps.nbytes)
                self._stream.synchronize()
                np.copyto(maps, staging.maps.array[:count])
            except TargetError as error:
                raise self._failure(count, error) from error

    def infer_device(
        self, inputs: Mapping[str, object], outputs: Mapping[str, object] | None = None
    ) -> Mapping[str, DeviceArray]:
        """Run one group from and to the GPU's memory, without a copy and without waiting; see `DeviceSession`."""
        with self._lock, self._device:
            images = take_in(inputs["images"], "images", self._stream)
            count = self._check_images(images.shape, np.dtype(np.float32))
            shape = (count, 1, *self._engine.image_shape[1:])
            try:
                runner = self._runner(count)
                maps = self._output_memory(shape, outputs, images)
                runner.run(images.pointer, maps.pointer, self._capture_stream)
                computed = DeviceArray(maps.pointer, shape, self._stream, maps)
            except TargetError as error:
                raise self._failure(count, error) from error
            self._in_use = [(ready, owner) for ready, owner in self._in_use if not ready.is_done()]
            self._in_use += [(computed.ready, held) for held in (images, maps) if isinstance(held, ForeignArray)]
            return {"maps": computed}

    def _output_memory(
        self, shape: tuple[int, ...], outputs: Mapping[str, object] | None, images: ForeignArray
    ) -> DeviceMemory | ForeignArray:
        if outputs is None:
            return DeviceMemory(self._device, int(np.prod(shape)) * 4)
        maps = take_out(outputs["maps"], "maps", self._stream, shape)
        check_apart(images, "images", maps, "maps")
        return maps

    def _check_images(self, shape: tuple[int, ...], dtype: np.dtype[np.generic]) -> int:
        """The number of photos in a group's input; raises UsageError if it is none for this plan."""
        wanted = self._engine.image_shape
        if dtype != np.float32 or len(shape) != 4 or tuple(shape[1:]) != wanted:
            raise UsageError(
                f"images: {dtype} {tuple(shape)} is no input of {self._where}, which takes float32 "
                f"(N, {', '.join(map(str, wanted))})"
            )
        if not shape[0]:
            raise UsageError("a group needs at least one photo")
        return int(shape[0])

    def _runner(self, count: int) -> GroupRunner:
        if count in self._runners:
            self._runners.move_to_end(count)
            return self._runners[count]
        profile = choose_profile(self._engine.profiles, count, self._where)
        if len(self._runners) >= GROUP_SIZES:
            self._stream.synchronize()
            self._runners.popitem(last=False)
        runner = GroupRunner(self._engine, profile.index, count, self._stream, self._cuda_graphs)
        if self._scratch is None or runner.scratch_size > self._scratch.size:
            self._stream.synchronize()
            self._runners.clear()  # their graphs hold addresses of the memory that goes
            if self._scratch is not None:
                self._scratch.close()
                self._scratch = None
            self._scratch = DeviceMemory(self._device, runner.scratch_size)
        runner.use_scratch(self._scratch)
        self._runners[count] = runner
        return runner

    def _staging_for(self, count: int) -> _Staging:
        if self._staging is None or self._staging.count < count:
            self._stream.synchronize()
            self._staging = None
            self._staging = _Staging(self._stream, count, self._engine.image_shape)
        return self._staging

    def _failure(self, count: int, error: TargetError) -> TargetError:
        return TargetError(f"{self._product} cannot run a group of {count} photos: {error}")


class _Staging:
    """Buffers for the input and output of groups of up to `count`, pinned ones on the host and ones on the GPU."""

    def __init__(self, stream: Stream, count: int, image_shape: tuple[int, ...]) -> None:
        self.count = count
        device = stream.device
        self.images = PinnedArray(device, (count, *image_shape))
        self.maps = PinnedArray(device, (count, 1, *image_shape[1:]))
        self.device_images = DeviceMemory(device, self.images.array.nbytes)
        self.device_maps = DeviceMemory(device, self.maps.array.nbytes)
