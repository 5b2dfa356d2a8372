"""What ONNX Runtime's CUDA provider does for a group as one CUDA graph: captured once for each size, then launched."""

from __future__ import annotations

import logging
import queue
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future, wait
from dataclasses import dataclass
from types import ModuleType
from typing import Any, TypeVar

import numpy as np

from gconet.runtime.errors import one_line
from gconet.runtime.preprocess import FloatArray

LOG = logging.getLogger(__name__)
SIZES = 4  # of groups, the first that come: a graph, and the memory it works in, stays until the session goes
GRAPH_ID = "gpu_graph_id"  # of a run: the graph to launch, or to capture first; above 0, as ONNX Runtime uses 0 itself
NO_GRAPH = "-1"  # neither captured nor launched
Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Group:
    """Memory of one group size on the GPU, as OrtValues, which its graph reads and writes.

    Attributes
    ----------
    images, maps : (N, 3, S, S) and (N, 1, S, S), float32.
    binding, options : to these, and the name of the graph.
    """

    images: Any
    maps: Any
    binding: Any
    options: Any


class OnnxRuntimeGraphs:
    """Runs a session that captures graphs, on one thread, whichever threads ask.

    ONNX Runtime keeps graphs by the thread that captured them, and for as long as the session whatever it sets up for a
    thread. A graph works in memory that plain runs may be lent meanwhile. And no other thread may allocate on the GPU
    while one captures. So all that a session does on its GPU is done here, one after the other.

    Parameters
    ----------
    session : of the graph `detect`, made with `enable_cuda_graph`.
    device, index : where its memory lies.
    size : S, of the network input.
    quiet : held while a graph is captured, so that whoever holds it may use the GPU on other threads.

    Attributes
    ----------
    plain : options of a run without a graph.
    """

    def __init__(
        self, ort: ModuleType, session: Any, device: str, index: int, size: int, quiet: threading.Lock
    ) -> None:
        self._ort, self._session, self._device, self._quiet = ort, session, (device, index), quiet
        self._image_shape = 3, size, size
        self._groups: dict[int, Group | None] = {}  # None: its capture failed
        self._work: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        # A pool takes no work once the main thread has ended, even where others of the process go on.
        threading.Thread(target=_serve, args=(self._work,), name="onnxruntime-graphs", daemon=True).start()
        weakref.finalize(self, self._work.put, None)
        self.plain = self._options(NO_GRAPH)

    def call(self, work: Callable[[], Answer]) -> Answer:
        """Do something on the thread, and hand over what it returns or raises; not to be called from within."""
        answer: Future[Answer] = Future()

        def answered() -> None:
            try:
                answer.set_result(work())
            except BaseException as error:  # whatever it is, the caller gets it
                answer.set_exception(error)

        self._work.put(answered)
        try:
            return answer.result()
        except BaseException:  # Ctrl-C lands here, while the work may still write to the caller's memory
            wait([answer])
            raise

    def infer(self, images: FloatArray) -> FloatArray | None:
        """Maps (N, 1, S, S) of a group (N, 3, S, S), in an array of its own; None without a graph, see `launch`."""
        if images.dtype != np.float32:
            return None

        def take(group: Group) -> FloatArray:
            maps: FloatArray = group.maps.numpy()
            return maps

        return self.launch(images.shape, lambda group: group.images.update_inplace(images), take)

    def launch(
        self, shape: tuple[int, ...], give: Callable[[Group], None], take: Callable[[Group], Answer]
    ) -> Answer | None:
        """Launch the graph of a group; to be called on the thread, by `call`.

        The first call for a size captures. Another thread of the process that allocates on the GPU just then may spoil
        that, and the size goes without.

        Parameters
        ----------
        shape : of the group, (N, 3, S, S).
        give, take : copy the input to the group's memory, and the maps out of it, and are done when they return.

        Returns
        -------
        What `take` did, or None if there is no graph for the size, and a plain run is due.
        """
        count, *image_shape = shape
        # ONNX Runtime compares no shape with that of the graph it launches.
        if count < 1 or tuple(image_shape) != self._image_shape:
            return None
        if group := self._groups.get(count):
            return self._run(group, give, take)
        if count in self._groups or len(self._groups) == SIZES:
            return None
        self._groups[count] = None
        try:
            with self._quiet:
                group = self._make(count)
                answer = self._run(group, give, take)
        except Exception as error:  # ONNX Runtime raises its own classes straight from Exception
            LOG.info("groups of %d photos run without a CUDA graph: %s", count, one_line(error))
            return None
        self._groups[count] = group
        return answer

    def _run(self, group: Group, give: Callable[[Group], None], take: Callable[[Group], Answer]) -> Answer:
        give(group)
        self._session.run_with_iobinding(group.binding, group.options)
        return take(group)

    def _make(self, count: int) -> Group:
        _, *sides = self._image_shape
        images, maps = (
            self._ort.OrtValue.ortvalue_from_shape_and_type(shape, np.float32, *self._device)
            for shape in ((count, *self._image_shape), (count, 1, *sides))
        )
        binding = self._session.io_binding()
        binding.bind_ortvalue_input("images", images)
        binding.bind_ortvalue_output("maps", maps)
        return Group(images, maps, binding, self._options(str(count)))

    def _options(self, graph: str) -> Any:
        options = self._ort.RunOptions()
        options.add_run_config_entry(GRAPH_ID, graph)
        return options


def _serve(work: queue.SimpleQueue[Callable[[], object] | None]) -> None:
    """Do what comes, until None does."""
    while (task := work.get()) is not None:
        task()
        del task  # and with it what it holds, such as the session
