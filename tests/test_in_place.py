"""Maps into the caller's memory: the same answer, whoever asks, and however often."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
from callers_arrays import CHANNELS, GIVEN, BundleMaker, images_of, room_for
from conftest import TINY_SIZE
from imaginary_sessions import SIZE, SessionMaker

import gconet.runtime as gr
from gconet.engines.registry import get_target
from gconet.runtime.large_groups import infer_group
from gconet.runtime.preprocess import FloatArray
from gconet.runtime.session import IntoSession


@pytest.mark.parametrize("given", GIVEN)
@pytest.mark.parametrize("count", [1, 2, 5])
def test_maps_are_those_of_the_session_to_the_bit(
    count: int, given: str, tiny_detector: gr.Detector, rng: np.random.Generator
) -> None:
    images = images_of(count, rng)
    expected = tiny_detector.session.infer({"images": images})["maps"]
    maps = room_for(images)
    assert tiny_detector.detect_into(GIVEN[given](images), GIVEN[given](maps)) is None
    np.testing.assert_array_equal(maps, expected)
    assert np.ptp(maps) > 0.01  # the comparison means something


def test_bf16_gives_float32_maps_too(tiny_bundle: BundleMaker, two_images: FloatArray) -> None:
    if get_target("openvino").preferred_precision() != "bf16":
        pytest.skip("this CPU has no bf16 instructions")
    detector = gr.load(tiny_bundle("openvino", "bf16"), threads=1)
    maps = room_for(two_images)
    detector.detect_into(two_images, maps)
    np.testing.assert_array_equal(maps, detector.session.infer({"images": two_images})["maps"])


@pytest.mark.parametrize("count", [1, 3, 7])
def test_segmenting_gives_what_the_graph_gives_block_by_block(
    count: int, tiny_detector: gr.Detector, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gconet.runtime.encoded_group.BLOCK_PIXELS", 3 * TINY_SIZE**2)
    images, consensus = images_of(count, rng), rng.random(CHANNELS, np.float32)
    maps = room_for(images)
    tiny_detector.segment_into(images, consensus, maps)
    kernel = consensus.reshape(1, -1, 1, 1)
    expected = tiny_detector.session.run("segment", {"images": images, "consensus": kernel})["maps"]  # type: ignore[attr-defined]
    np.testing.assert_allclose(maps, expected, rtol=0, atol=1e-5)
    assert np.abs(maps - tiny_detector.session.infer({"images": images})["maps"]).max() > 1e-3


def test_a_large_group_is_done_in_blocks(
    tiny_detector: gr.Detector, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gconet.runtime.encoded_group.BLOCK_PIXELS", 3 * TINY_SIZE**2)
    monkeypatch.setattr("gconet.runtime.large_groups.ONE_CALL_PIXELS", 4 * TINY_SIZE**2)
    images = images_of(7, rng)
    assert tiny_detector.streams(7)
    maps = room_for(images)
    tiny_detector.detect_into(images, maps)
    np.testing.assert_array_equal(maps, infer_group(tiny_detector.session, tiny_detector.bundle.manifest, images))


def test_maps_of_earlier_calls_stay_as_they_are(tiny_detector: gr.Detector, rng: np.random.Generator) -> None:
    """What an engine was bound to before, it must not write to again, whichever way it is asked."""
    first, second, third = (images_of(2, rng) for _ in range(3))
    expected = [tiny_detector.session.infer({"images": images})["maps"] for images in (first, second, third)]
    maps = [room_for(first), room_for(second)]
    tiny_detector.detect_into(first, maps[0])
    tiny_detector.detect_into(second, maps[1])
    np.testing.assert_array_equal(tiny_detector.session.infer({"images": third})["maps"], expected[2])
    np.testing.assert_array_equal(maps[0], expected[0])
    np.testing.assert_array_equal(maps[1], expected[1])
    first[...] = third  # the same memory with other photos
    tiny_detector.detect_into(first, maps[0])
    np.testing.assert_array_equal(maps[0], expected[2])
    np.testing.assert_array_equal(maps[1], expected[1])


def test_eight_threads_each_get_their_own_maps(tiny_detector: gr.Detector, rng: np.random.Generator) -> None:
    groups = [images_of(count, rng) for count in (1, 2, 3, 4) for _ in range(6)]
    expected = [tiny_detector.session.infer({"images": images})["maps"] for images in groups]
    answers = [room_for(images) for images in groups]
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(tiny_detector.detect_into, groups * 3, answers * 3))
    for maps, reference in zip(answers, expected, strict=True):
        np.testing.assert_array_equal(maps, reference)


def test_a_plan_writes_to_the_callers_memory_too(make_session: SessionMaker, rng: np.random.Generator) -> None:
    session = make_session()
    bundle = SimpleNamespace(manifest=SimpleNamespace(preprocessing=gr.Preprocessing(SIZE), max_group=12), folder="b")
    detector = gr.Detector(bundle, session)  # type: ignore[arg-type] # what is asked of one
    images = images_of(3, rng, SIZE)
    maps = room_for(images)
    detector.detect_into(images, maps)
    np.testing.assert_array_equal(maps, session.infer({"images": images})["maps"])
    assert isinstance(session, IntoSession)
    with pytest.raises(gr.BundleError, match="has no graph `segment`"):
        session.run_into("segment", {"images": images}, {"maps": maps})
    with pytest.raises(gr.UsageError, match="takes up to 12"):
        detector.detect_into(images_of(13, rng, SIZE), np.empty((13, 1, SIZE, SIZE), np.float32))


def test_a_session_that_only_gives_maps_is_copied_from(tiny_detector: gr.Detector, two_images: FloatArray) -> None:
    inner = tiny_detector.session
    watched = gr.Detector(tiny_detector.bundle, SimpleNamespace(infer=inner.infer, max_group=None))  # type: ignore[arg-type]
    maps = room_for(two_images)
    watched.detect_into(two_images, maps)
    np.testing.assert_array_equal(maps, inner.infer({"images": two_images})["maps"])
