"""Other libraries' arrays on a real GPU without a copy, and threads. Run with `pytest -m gpu`."""

from __future__ import annotations

import gc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY_MAX_GROUP, TINY_SIZE
from gpu_bundles import images_of, infer, need_torch_cuda

import gconet.runtime as gr
from gconet.runtime.device_arrays import DeviceArray
from gconet.runtime.preprocess import FloatArray

pytestmark = pytest.mark.gpu


def test_torch_tensors_go_in_and_out_without_a_copy(gpu_detector: gr.Detector, rng: np.random.Generator) -> None:
    device = need_torch_cuda()
    values = images_of(3, rng)
    expected = infer(gpu_detector, values)
    images = torch.from_numpy(values).to(device)
    maps = torch.empty(3, 1, TINY_SIZE, TINY_SIZE, device=device)
    for _ in range(3):  # plain, captured, launched
        maps.zero_()
        computed = gpu_detector.detect_on_device(images, maps)
        taken = torch.from_dlpack(computed)
        assert computed.pointer == maps.data_ptr() == taken.data_ptr()
        np.testing.assert_allclose(taken.cpu().numpy(), expected, rtol=0, atol=1e-6)
    new = gpu_detector.detect_on_device(images)
    by_dlpack, by_interface = torch.from_dlpack(new), torch.as_tensor(new, device=device)
    assert new.pointer == by_dlpack.data_ptr() == by_interface.data_ptr() != maps.data_ptr()
    np.testing.assert_allclose(by_dlpack.cpu().numpy(), expected, rtol=0, atol=1e-6)
    np.testing.assert_allclose(new.numpy(), expected, rtol=0, atol=1e-6)


def test_maps_outlive_what_they_were_made_from(gpu_plan: Path, rng: np.random.Generator) -> None:
    device = need_torch_cuda()
    detector = gr.load(gpu_plan, device="cuda")
    values = images_of(2, rng)
    expected = infer(detector, values)
    maps = torch.from_dlpack(detector.detect_on_device(torch.from_numpy(values).to(device)))
    del detector
    gc.collect()
    torch.empty(10**6, device=device).fill_(9)
    np.testing.assert_allclose(maps.cpu().numpy(), expected, rtol=0, atol=1e-6)


def test_streams_wait_for_each_other_without_the_host(gpu_detector: gr.Detector, rng: np.random.Generator) -> None:
    """Input computed late on a stream of torch's, then freed at once; output used on that stream at once."""
    device = need_torch_cuda()
    values = [images_of(2, rng) for _ in range(20)]
    expected = [infer(gpu_detector, value) for value in values]
    uploaded = [torch.from_numpy(value).to(device) for value in values]
    busy = torch.randn(2048, 2048, device=device)
    answers = []
    torch.cuda.synchronize()
    with torch.cuda.stream(torch.cuda.Stream()):
        for value in uploaded:
            for _ in range(4):
                busy = torch.tanh(busy @ busy)
            images = value + 0 * busy[0, 0]
            maps = gpu_detector.detect_on_device(images)
            del images
            torch.full_like(value, torch.nan)  # might get the memory of the input
            answers.append(torch.from_dlpack(maps) * 2)
    torch.cuda.synchronize()
    for answer, maps_expected in zip(answers, expected, strict=True):
        np.testing.assert_allclose(answer.cpu().numpy(), 2 * maps_expected, rtol=0, atol=1e-5)


def test_torch_tensors_that_do_not_fit_are_one_line(gpu_detector: gr.Detector) -> None:
    device = need_torch_cuda()
    images = torch.zeros(2, 3, TINY_SIZE, TINY_SIZE, device=device)
    wrong = {
        "float32": images.half(),
        "C-contiguous": images.transpose(2, 3),
        "requires grad|require gradient": images.clone().requires_grad_(),
        "not on a GPU": images.cpu(),
    }
    for complaint, tensor in wrong.items():
        with pytest.raises(gr.UsageError, match=complaint) as caught:
            gpu_detector.detect_on_device(tensor)
        assert "\n" not in str(caught.value)


def test_pycuda_arrays_go_in_and_out_without_a_copy(gpu_detector: gr.Detector, rng: np.random.Generator) -> None:
    pytest.importorskip("pycuda.autoprimaryctx", reason="needs PyCUDA: pip install 'gconet-deploy[pycuda]'")
    from pycuda import gpuarray

    values = images_of(3, rng)
    expected = infer(gpu_detector, values)
    images, maps = gpuarray.to_gpu(values), gpuarray.zeros((3, 1, TINY_SIZE, TINY_SIZE), np.float32)
    computed = gpu_detector.detect_on_device(images, maps)
    assert computed.pointer == int(maps.gpudata)
    computed.synchronize()
    np.testing.assert_allclose(maps.get(), expected, rtol=0, atol=1e-6)

    new = gpu_detector.detect_on_device(images)
    new.synchronize()
    wrapped = gpuarray.GPUArray(new.shape, new.dtype, base=new, gpudata=new.pointer)
    np.testing.assert_allclose(wrapped.get(), expected, rtol=0, atol=1e-6)


def test_cupy_arrays_go_in_and_out_without_a_copy(gpu_detector: gr.Detector, rng: np.random.Generator) -> None:
    cupy = pytest.importorskip("cupy", reason="needs CuPy")
    values = images_of(3, rng)
    expected = infer(gpu_detector, values)
    maps = cupy.zeros((3, 1, TINY_SIZE, TINY_SIZE), np.float32)
    computed = gpu_detector.detect_on_device(cupy.asarray(values), maps)
    for taken in (cupy.from_dlpack(computed), cupy.asarray(computed)):
        assert computed.pointer == maps.data.ptr == taken.data.ptr
        np.testing.assert_allclose(cupy.asnumpy(taken), expected, rtol=0, atol=1e-6)


# Threads


def test_eight_threads_with_groups_of_different_sizes_get_their_own_maps(
    gpu_detector: gr.Detector, rng: np.random.Generator
) -> None:
    groups = [images_of(1 + index % TINY_MAX_GROUP, rng) for index in range(64)]
    in_turn = [infer(gpu_detector, images) for images in groups]
    with ThreadPoolExecutor(8) as threads:
        at_once = list(threads.map(lambda images: infer(gpu_detector, images), groups))
    for maps, expected in zip(at_once, in_turn, strict=True):
        np.testing.assert_allclose(maps, expected, rtol=0, atol=1e-6)


def test_eight_threads_with_tensors_and_arrays_mixed_get_their_own_maps(
    gpu_detector: gr.Detector, rng: np.random.Generator
) -> None:
    device = need_torch_cuda()
    groups = [images_of(1 + index % TINY_MAX_GROUP, rng) for index in range(64)]
    in_turn = [infer(gpu_detector, images) for images in groups]

    def ask(index: int) -> FloatArray:
        if index % 2:
            return infer(gpu_detector, groups[index])
        with torch.cuda.stream(torch.cuda.Stream()):
            maps: DeviceArray = gpu_detector.detect_on_device(torch.from_numpy(groups[index]).to(device))
            return np.asarray(torch.from_dlpack(maps).cpu().numpy())

    with ThreadPoolExecutor(8) as threads:
        at_once = list(threads.map(ask, range(64)))
    for maps, expected in zip(at_once, in_turn, strict=True):
        np.testing.assert_allclose(maps, expected, rtol=0, atol=1e-6)


def test_two_sessions_share_the_gpu(gpu_plan: Path, rng: np.random.Generator) -> None:
    first, second = (gr.load(gpu_plan, device="cuda") for _ in range(2))
    groups = [images_of(2, rng) for _ in range(32)]
    expected = [infer(first, images) for images in groups]
    with ThreadPoolExecutor(2) as threads:
        both = [threads.submit(lambda d: [infer(d, images) for images in groups], d) for d in (first, second)]
        for answers in (done.result() for done in both):
            np.testing.assert_array_equal(np.concatenate(answers), np.concatenate(expected))
