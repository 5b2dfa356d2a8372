"""What the functions of gconet.h do: libgconet.so calls these, with cffi's pointers, in the interpreter inside it."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gconet.runtime.capi.pointers import Pointers
from gconet.runtime.detector import Detector, load
from gconet.runtime.errors import (
    BundleError,
    ConsensusError,
    GconetError,
    PhotoError,
    TargetError,
    UsageError,
    one_line,
)
from gconet.runtime.host_arrays import HostBuffer, check_finite, take_in, take_out
from gconet.runtime.preprocess import FloatArray, to_input
from gconet.runtime.session import GraphSession

ABI_VERSION = 1  # of gconet.h and bridge.h, which a library has been built with; it refuses a module of another
FIRST_NUMBER = 0x6763_0000  # so that no stray pointer is taken for a detector
LEGACY_STREAM = 1  # the default stream, by __cuda_array_interface__

OK = 0
STATUS: dict[type[BaseException], int] = {  # as in gconet.h
    UsageError: 1,
    PhotoError: 2,
    BundleError: 3,
    ConsensusError: 4,
    TargetError: 5,
    MemoryError: 6,
}
INTERNAL = 8

FUNCTIONS = (
    "load", "free", "describe", "manifest", "detect", "consensus", "read_consensus", "segment", "prepare",
    "detect_input", "segment_input", "detect_device",
)  # fmt: skip


def bind(ffi: Any) -> None:
    """Give the library its functions; called once, by the code that it carries."""
    calls, pointers = Calls(Pointers(ffi)), Pointers(ffi)
    for name in FUNCTIONS:
        ffi.def_extern(name=f"py_{name}")(_guarded(getattr(calls, name), pointers))


def _guarded(function: Callable[..., None], pointers: Pointers) -> Callable[..., int]:
    """The function for C: a status + 1 for what it raises, and the reason in the room that the last arguments give."""

    def call(*arguments: Any) -> int:
        *values, message, room = arguments
        try:
            function(*values)
        except GconetError as error:
            status, text = STATUS.get(type(error), INTERNAL), " ".join(str(error).split())
        except MemoryError as error:
            status, text = STATUS[MemoryError], f"no memory left ({one_line(error)})"
        except BaseException as error:  # none may cross the border
            status, text = INTERNAL, f"{type(error).__name__}: {one_line(error)}"
        else:
            return OK + 1
        pointers.write_text(message, text, room)
        return status + 1

    return call


@dataclass(frozen=True)
class DeviceBuffer:
    """Float32 memory of a GPU by its address, used in the order of a stream."""

    address: int
    shape: tuple[int, ...]
    stream: int

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {"shape": self.shape, "typestr": "<f4", "data": (self.address, False), "strides": None,
                "stream": self.stream, "version": 3}  # fmt: skip


class Calls:
    """The detectors that a process has loaded, by numbers which C takes for pointers: they are never looked into, and
    none is given twice, so that one that was freed, or never was one, is an error and no crash.
    """

    def __init__(self, pointers: Pointers) -> None:
        self._pointers = pointers
        self._detectors: dict[int, Detector] = {}
        self._numbers = itertools.count(FIRST_NUMBER)
        self._lock = threading.Lock()

    def load(
        self, bundle: Any, device: Any, provider: Any, threads: int, no_cuda_graphs: int, signature: Any, number: Any
    ) -> None:
        """See gconet_load."""
        text = self._pointers.text
        detector = load(
            text(bundle),
            text(device) or "auto",
            threads or None,
            cuda_graphs=not no_cuda_graphs,
            provider=text(provider) or "cuda",
            require_signature=text(signature) if signature else None,  # "" is no key, and no leave to do without one
        )
        with self._lock:
            number[0] = next(self._numbers)
            self._detectors[number[0]] = detector

    def free(self, number: int) -> None:
        """See gconet_free."""
        with self._lock:
            detector = self._detectors.pop(number, None)
        del detector  # outside the lock, as engines take their time

    def describe(self, number: int, info: Any) -> None:
        """See gconet_describe."""
        detector = self._detector(number)
        session, manifest = detector.session, detector.bundle.manifest
        info.input_size = manifest.preprocessing.size
        info.max_group = session.max_group or 0
        info.verified_group = manifest.max_group
        info.consensus_length = detector.channels
        info.has_consensus = isinstance(session, GraphSession) and {"consensus", "segment"} <= session.graphs
        info.mean, info.std = manifest.preprocessing.mean, manifest.preprocessing.std
        for field in ("target", "precision", "target_version"):
            room = getattr(info, field)
            self._pointers.write_text(room, getattr(manifest, field), len(room))

    def manifest(self, number: int, json: Any, capacity: int, length: Any) -> None:
        """See gconet_manifest."""
        text = self._detector(number).bundle.manifest.to_json()
        length[0] = len(text.encode())
        if capacity:
            if capacity <= length[0]:
                raise UsageError(f"the manifest has {length[0]} bytes and a closing 0, there is room for {capacity}")
            self._pointers.write_text(json, text, capacity)

    def detect(self, number: int, photos: Any, count: int, maps: Any) -> None:
        """See gconet_detect."""
        detector, group = self._detector(number), self._pointers.photos(photos, count)
        _fill(self._pointers.maps(maps, group), detector.stream(group))

    def consensus(self, number: int, photos: Any, count: int, consensus: Any, length: int) -> None:
        """See gconet_consensus."""
        detector, group = self._detector(number), self._pointers.photos(photos, count)
        room = self._consensus_room(detector, consensus, length)
        room[...] = detector.consensus(group)

    def read_consensus(self, number: int, path: Any, consensus: Any, length: int) -> None:
        """See gconet_read_consensus."""
        from gconet.runtime.consensus_file import load_consensus

        detector = self._detector(number)
        room = self._consensus_room(detector, consensus, length)
        room[...] = load_consensus(self._pointers.text(path), detector.bundle).vector

    def segment(self, number: int, photos: Any, count: int, consensus: Any, length: int, maps: Any) -> None:
        """See gconet_segment."""
        detector, group = self._detector(number), self._pointers.photos(photos, count)
        view = take_in(self._pointers.floats(consensus, "consensus", (length,)), "consensus", (detector.channels,))
        check_finite(view, "consensus")
        _fill(self._pointers.maps(maps, group), detector.segment_stream(group, view.array))

    def prepare(self, number: int, photos: Any, count: int, images: Any) -> None:
        """See gconet_prepare."""
        detector, group = self._detector(number), self._pointers.photos(photos, count)
        if not group:
            raise UsageError("a group needs at least one photo")
        room = self._input(detector, images, count)
        take_out(room, "images", room.shape).array[...] = to_input(group, detector.bundle.manifest.preprocessing)

    def detect_input(self, number: int, images: Any, count: int, maps: Any) -> None:
        """See gconet_detect_input."""
        detector = self._detector(number)
        detector.detect_into(self._input(detector, images, count), self._output(detector, maps, count))

    def segment_input(self, number: int, images: Any, count: int, consensus: Any, length: int, maps: Any) -> None:
        """See gconet_segment_input."""
        detector = self._detector(number)
        kernel = self._pointers.floats(consensus, "consensus", (length,))
        detector.segment_into(self._input(detector, images, count), kernel, self._output(detector, maps, count))

    def detect_device(self, number: int, images: Any, count: int, maps: Any, stream: int) -> None:
        """See gconet_detect_device."""
        detector, stream = self._detector(number), stream or LEGACY_STREAM
        places = (self._input(detector, images, count), self._output(detector, maps, count))
        given, wanted = (DeviceBuffer(place.address, place.shape, stream) for place in places)
        detector.detect_on_device(given, wanted).wait_on(stream)

    def _detector(self, number: int) -> Detector:
        try:
            return self._detectors[number]
        except KeyError:
            raise UsageError(f"{number:#x} is no detector: it was freed, or never loaded") from None

    def _input(self, detector: Detector, images: Any, count: int) -> HostBuffer:
        size = detector.bundle.manifest.preprocessing.size
        return self._pointers.floats(images, "images", (self._pointers.count(count), 3, size, size))

    def _output(self, detector: Detector, maps: Any, count: int) -> HostBuffer:
        size = detector.bundle.manifest.preprocessing.size
        return self._pointers.floats(maps, "maps", (self._pointers.count(count), 1, size, size))

    def _consensus_room(self, detector: Detector, consensus: Any, length: int) -> FloatArray:
        room = self._pointers.floats(consensus, "consensus", (length,))
        return take_out(room, "consensus", (detector.channels,)).array


def _fill(rooms: Sequence[FloatArray], maps: Iterable[FloatArray]) -> None:
    for room, saliency in zip(rooms, maps, strict=True):
        np.copyto(room, saliency)
