"""Arrays that maps cannot be written to, or input not read from: one line that says what is wrong."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from callers_arrays import CHANNELS, BundleMaker, room_for

import gconet.runtime as gr
from gconet.runtime.preprocess import FloatArray

WRONG: dict[str, tuple[Callable[[FloatArray, FloatArray], tuple[Any, Any]], str]] = {
    "double": (lambda i, m: (i.astype(float), m), r"^images: its elements are float64, not float32"),
    "byte order": (lambda i, m: (i, m.astype(">f4")), r"^maps: its elements are >f4, not float32"),
    "half tensor": (lambda i, m: (torch.from_numpy(i).half(), m), r"^images: its elements are not float32"),
    "channels": (lambda i, m: (i[:, :2], m), r"^images: its shape is \(2, 2, 64, 64\), it must be \(N, 3, 64, 64\)"),
    "rank": (lambda i, m: (i[0], m), r"^images: its shape is \(3, 64, 64\)"),
    "no photos": (lambda i, m: (i[:0], m[:0]), r"^images: its shape is \(0, 3, 64, 64\)"),
    "other count": (lambda i, m: (i, m[:1]), r"^maps: its shape is \(1, 1, 64, 64\), it must be \(2, 1, 64, 64\)"),
    "no channel axis": (lambda i, m: (i, m[:, 0]), r"^maps: its shape is \(2, 64, 64\)"),
    "strided": (lambda i, m: (i[:, :, :, ::-1], m), r"^images: it is not C-contiguous \(strides "),
    "strided tensor": (
        lambda i, m: (torch.from_numpy(i).permute(0, 1, 3, 2), m),
        r"^images: it is not C-contiguous \(strides ",
    ),
    "transposed maps": (lambda i, m: (i, m.transpose(0, 1, 3, 2)), r"^maps: it is not C-contiguous"),
    "read-only": (lambda i, m: (i, read_only(m)), r"^maps: it is read-only"),
    "read-only address": (
        lambda i, m: (i, gr.HostBuffer(m.ctypes.data, m.shape, read_only=True)),
        r"^maps: it is read-only",
    ),
    "overlap": (lambda i, _: (i, i.reshape(-1)[: 2 * 64 * 64].reshape(2, 1, 64, 64)), r"^maps: it overlaps images"),
    "unaligned": (lambda i, m: (unaligned(i), m), r"^images: its address 0x[0-9a-f]+ is no multiple of 4"),
    "NaN": (lambda i, m: (with_value(i, np.nan), m), r"^images: it holds NaN or infinity"),
    "infinity": (lambda i, m: (with_value(i, -np.inf), m), r"^images: it holds NaN or infinity"),
    "masked": (lambda i, m: (np.ma.masked_less(i, 0), m), r"^images: masked arrays"),
    "list": (lambda i, m: (i.tolist(), m), r"^images: a list is no array .* HostBuffer$"),
    "none": (lambda i, _: (i, None), r"^maps: a NoneType is no array"),
    "needs grad": (lambda i, m: (torch.from_numpy(i).requires_grad_(), m), r"^images: a Tensor cannot be shared: "),
    "on a GPU": (
        lambda _, m: (SimpleNamespace(__dlpack_device__=lambda: (2, 0)), m),
        r"not on the host .*detect_on_de",
    ),
    "no capsule": (
        lambda _, m: (SimpleNamespace(__dlpack_device__=lambda: (1, 0), __dlpack__=lambda: 3), m),
        r"^images: a SimpleNamespace cannot be shared: its __dlpack__ returned no capsule",
    ),
    "damaged interface": (
        lambda _, m: (SimpleNamespace(__array_interface__={"shape": "wide"}), m),
        r"^images: a SimpleNamespace cannot be shared: ",
    ),
}


def read_only(array: FloatArray) -> FloatArray:
    view = array.view()
    view.flags.writeable = False
    return view


def unaligned(array: FloatArray) -> FloatArray:
    return np.frombuffer(b"\0" + array.tobytes(), np.uint8)[1:].view(np.float32).reshape(array.shape)


def with_value(array: FloatArray, value: float) -> FloatArray:
    array[1, 2, 3, 4] = value
    return array


@pytest.mark.parametrize("what", WRONG)
def test_arrays_that_cannot_be_used_are_one_line_that_says_what_is_wrong(
    what: str, tiny_bundle: BundleMaker, two_images: FloatArray
) -> None:
    detector = gr.load(tiny_bundle("onnxruntime", "fp32"), threads=1)
    spoil, complaint = WRONG[what]
    maps = room_for(two_images)
    with pytest.raises(gr.UsageError, match=complaint) as caught:
        detector.detect_into(*spoil(two_images, maps))
    assert "\n" not in str(caught.value)
    assert (maps == -7).all()


@pytest.mark.parametrize(
    ("consensus", "complaint"),
    [
        (np.zeros(CHANNELS + 1, np.float32), r"^consensus: its shape is \(17,\), it must be \(16,\)"),
        (np.zeros(CHANNELS), "^consensus: its elements are float64"),
        (np.full(CHANNELS, np.nan, np.float32), "^consensus: it holds NaN"),
    ],
    ids=["length", "double", "NaN"],
)
def test_a_consensus_that_cannot_be_used_is_refused(
    consensus: Any, complaint: str, tiny_detector: gr.Detector, two_images: FloatArray
) -> None:
    with pytest.raises(gr.UsageError, match=complaint):
        tiny_detector.segment_into(two_images, consensus, room_for(two_images))


def test_the_null_address_is_refused() -> None:
    with pytest.raises(gr.UsageError, match="address 0 is no memory"):
        gr.HostBuffer(0, (1, 3, 64, 64))
