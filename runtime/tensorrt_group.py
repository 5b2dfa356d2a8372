"""One group size of a plan, ready to run: an execution context of its own, and the CUDA graph captured from it."""

from __future__ import annotations

from gconet.runtime.cuda import DeviceMemory, Graph, Stream
from gconet.runtime.errors import TargetError
from gconet.runtime.tensorrt_engine import INPUT, OUTPUT, Engine


class GroupRunner:
    """Runs groups of one size; one call at a time, on one stream, `with device:` around every method.

    A graph holds addresses and a group size, and refers to its context's state: so each size has a context of its own,
    whose shapes are set once. The working memory is the caller's, who may share it among runners of one stream.

    Attributes
    ----------
    scratch_size : bytes of working memory that the context needs for this group.
    graph : of the last addresses that came twice in a row, if any.
    """

    def __init__(self, engine: Engine, profile: int, count: int, stream: Stream, cuda_graphs: bool) -> None:
        self._engine, self._stream = engine, stream
        engine.errors.clear()
        self._context = engine.engine.create_execution_context(engine.context_settings)
        self._check(self._context is not None)
        self._check(self._context.set_optimization_profile_async(profile, stream.address))
        self._check(self._context.set_input_shape(INPUT, (count, *engine.image_shape)))
        self.scratch_size = int(self._context.update_device_memory_size_for_shapes())
        self.graph: Graph | None = None
        self._graph_addresses: tuple[int, int] | None = None
        self._last_addresses: tuple[int, int] | None = None
        self._captures = cuda_graphs

    def use_scratch(self, memory: DeviceMemory) -> None:
        """Set the working memory, at least `scratch_size`, before the first run; it must outlive the runner."""
        self._context.set_device_memory(memory.pointer, memory.size)

    def run(self, images: int, maps: int, capture_stream: Stream) -> None:
        """Append a run to the stream, from input at one address to output at another.

        The first run on a pair of addresses is a plain one, which also does what TensorRT puts off until then; the
        second in a row is captured, on a stream that no other library knows of, and launched from then on.

        Raises
        ------
        TargetError
            If TensorRT or CUDA refuse.
        """
        addresses = images, maps
        if addresses != self._graph_addresses and addresses == self._last_addresses and self._captures:
            self._capture(addresses, capture_stream)
        if self.graph is not None and addresses == self._graph_addresses:
            self.graph.launch(self._stream)
        else:
            self._enqueue(addresses, self._stream)
        if self._last_addresses is None and self._engine.kernels is not None:
            self._engine.kernels.save()
        self._last_addresses = addresses

    def _capture(self, addresses: tuple[int, int], stream: Stream) -> None:
        """Make the graph of these addresses. Plans that cannot be captured, as for loops, run plainly for good."""
        if self.graph is not None:
            self._stream.synchronize()  # it may still be running
            self.graph.close()
            self.graph = self._graph_addresses = None
        try:
            can = getattr(self._context, "is_stream_capturable", None)  # of TensorRT for RTX
            if can is not None and not can(stream.address):
                raise TargetError("it cannot be captured")
            self.graph = stream.capture(lambda: self._enqueue(addresses, stream))
            self._graph_addresses = addresses
        except TargetError:
            self._captures = False

    def _enqueue(self, addresses: tuple[int, int], stream: Stream) -> None:
        self._engine.errors.clear()
        for name, address in zip((INPUT, OUTPUT), addresses, strict=True):
            self._check(self._context.set_tensor_address(name, address))
        self._check(self._context.execute_async_v3(stream.address))

    def _check(self, succeeded: bool) -> None:
        if not succeeded:
            raise TargetError(self._engine.reason())
