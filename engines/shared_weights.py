"""Several graphs, one file of weights: what they have in common is stored once."""

from __future__ import annotations

import hashlib
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import BinaryIO

import onnx
from onnx.external_data_helper import set_external_data

WEIGHTS_FILE = "weights.bin"
ALIGNMENT = 64  # bytes, a cache line: engines then use the weights where the file is mapped
INLINE_BELOW = 1024  # bytes; shapes and axes, which engines want to see while they load the graph


class WeightStore:
    """A file of tensors, each written once however often it is asked for."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._offsets: dict[bytes, int] = {}

    def place(self, data: bytes) -> int:
        """The offset of these bytes in the file, where they are written if they are new."""
        digest = hashlib.sha256(data).digest()
        if digest not in self._offsets:
            end = self._file.seek(0, 2)
            self._offsets[digest] = end + -end % ALIGNMENT
            self._file.write(bytes(-end % ALIGNMENT) + data)
        return self._offsets[digest]


def move_onnx_weights(graph: onnx.ModelProto, store: WeightStore) -> None:
    """Move a graph's weights to the store, in place; the graph then names the file, in its own folder."""
    for tensor in graph.graph.initializer:
        data = onnx.numpy_helper.to_array(tensor).tobytes()
        if len(data) < INLINE_BELOW:
            continue
        tensor.ClearField("float_data")
        tensor.ClearField("int64_data")
        tensor.ClearField("int32_data")
        tensor.raw_data = data
        set_external_data(tensor, WEIGHTS_FILE, store.place(data), len(data))
        tensor.ClearField("raw_data")


def move_ir_weights(description: Path, weights: Path, store: WeightStore) -> bytes:
    """Move the weights of an OpenVINO IR to the store.

    Parameters
    ----------
    description, weights : the .xml and .bin that OpenVINO wrote.

    Returns
    -------
    The .xml for the store's file.
    """
    tree = ElementTree.parse(description)
    content = weights.read_bytes()
    for layer in tree.iter("layer"):
        if layer.get("type") != "Const":
            continue
        for data in layer.iter("data"):
            offset, size = int(data.attrib["offset"]), int(data.attrib["size"])
            data.set("offset", str(store.place(content[offset : offset + size])))
    return ElementTree.tostring(tree.getroot(), encoding="utf-8", xml_declaration=True)
