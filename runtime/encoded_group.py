"""A group whose photos are encoded a block at a time; what is needed of them later is kept in files."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gconet.runtime.columns import Column
from gconet.runtime.errors import BundleError, UsageError
from gconet.runtime.manifest import Manifest
from gconet.runtime.preprocess import FloatArray
from gconet.runtime.session import GraphSession, PartTensors, Session

BLOCK_PIXELS = 8 * 224**2  # of network input that is worked on at once
LATERALS = ("lateral_2", "lateral_3", "lateral_4")
AFFINITY = ("features", "query")  # what photos are compared by


def block_size(size: int) -> int:
    """Photos in a block, for network input of `size`×`size`."""
    return max(1, BLOCK_PIXELS // size**2)


def blocks(count: int, length: int) -> Iterator[tuple[int, int]]:
    """Start and stop of the blocks that `count` photos make."""
    return ((start, min(start + length, count)) for start in range(0, count, length))


def graph_session(session: Session, graph: str) -> GraphSession:
    """The session, if it can run `graph`; raises BundleError where its bundle has no such graph."""
    if isinstance(session, GraphSession) and graph in session.graphs:
        return session
    raise BundleError(
        f"the bundle has no graph `{graph}`, which this needs: build it again, for target openvino or onnxruntime"
    )


def run_padded(session: GraphSession, graph: str, inputs: PartTensors, lengths: dict[str, int]) -> PartTensors:
    """Run a graph on blocks, the last of which may be short: they are filled up, so that one shape is compiled.

    Only for graphs whose photos do not see each other. Single photos stay alone.

    Parameters
    ----------
    inputs, lengths : tensors (n, …), and how long each is made; those not in `lengths` are left as they are.
    """
    filled = dict(inputs)
    for name, length in lengths.items():
        array = inputs[name]
        if 1 < len(array) < length:
            filled[name] = np.concatenate([array, np.repeat(array[-1:], length - len(array), axis=0)])
    return session.run(graph, filled)


class EncodedGroup:
    """Features of a group's photos in temporary files.

    Parameters
    ----------
    drawable : also keep what maps are drawn from.
    """

    def __init__(self, session: Session, manifest: Manifest, drawable: bool) -> None:
        self.session = graph_session(session, "encode")
        self.affine = bool(manifest.architecture.get("gam", True))
        self.block = block_size(manifest.preprocessing.size)
        self.drawable = drawable
        self._columns: dict[str, Column] = {}
        self.pixel_bias: list[FloatArray] = []  # of each photo (h·w,), zeros without GAM

    def __len__(self) -> int:
        """Photos so far."""
        return len(self.pixel_bias)

    def append(self, images: FloatArray) -> None:
        """Encode photos (n, 3, S, S), as `to_input` gives them; at most a block, and all of it or nothing.

        Raises
        ------
        UsageError
            If there is no room on the disk.
        TargetError
            If the engine fails.
        """
        outputs = run_padded(self.session, "encode", {"images": images}, {"images": self.block})
        features = outputs["features"]
        bias = outputs.get("pixel_bias", np.zeros((len(features), 1, *features.shape[2:]), np.float32))
        kept = [*AFFINITY, *LATERALS] if self.drawable else AFFINITY
        for name in kept:
            if name in outputs:
                self._append(name, outputs[name][: len(images)])
        if self.drawable:
            self._append("images", images)
        self.pixel_bias += [values.reshape(-1) for values in bias[: len(images)]]

    def cut(self, length: int) -> None:
        """Forget all photos but the first `length`."""
        del self.pixel_bias[length:]

    def read(self, name: str, start: int, stop: int) -> NDArray[Any]:
        """What was kept of photos `start` to `stop`, by the name of the tensor."""
        return self._columns[name].read(start, stop)

    def draw(self, start: int, stop: int, consensus: FloatArray) -> FloatArray:
        """Maps (n, S, S) of photos `start` to `stop` against a consensus (C,)."""
        if not self.drawable:
            raise UsageError("nothing was kept to draw maps from")
        inputs = {name: self.read(name, start, stop) for name in ("images", "features", *LATERALS)}
        lengths = dict.fromkeys(inputs, self.block)
        inputs["consensus"] = consensus.reshape(1, -1, 1, 1)
        return run_padded(self.session, "draw", inputs, lengths)["maps"][: stop - start, 0]

    def _append(self, name: str, block: NDArray[Any]) -> None:
        if name not in self._columns:
            self._columns[name] = Column(block.shape[1:], block.dtype)
        self._columns[name].append(block, len(self))  # over what is left of photos that failed halfway
