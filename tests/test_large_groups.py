"""Groups in blocks give the answer of one call; a consensus grows photo by photo, and finds its object again."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import TINY, TINY_MAX_GROUP, TINY_SIZE

import gconet.runtime as gr
from gconet.engines.bundle_writer import describe_files, staged_bundle, write_manifest
from gconet.engines.graph_parts import cut
from gconet.engines.registry import get_target
from gconet.engines.target import EngineSpec
from gconet.export.to_onnx import export_detect
from gconet.runtime.columns import Column
from gconet.runtime.encoded_group import graph_session
from gconet.runtime.large_groups import infer_group
from gconet.runtime.preprocess import FloatArray, Photo, Preprocessing, to_input
from gconet.runtime.session import INNER_TENSORS
from gconet.train.checkpoint import random_checkpoint
from gconet.train.model import GCoNet

BLOCK = 3
TARGETS = ("onnxruntime", "openvino")
Bundles = Callable[[str, str], Path]


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of three photos of the tiny network; groups above four are streamed."""
    monkeypatch.setattr("gconet.runtime.encoded_group.BLOCK_PIXELS", BLOCK * TINY_SIZE**2)
    monkeypatch.setattr("gconet.runtime.large_groups.ONE_CALL_PIXELS", 4 * TINY_SIZE**2)


@pytest.fixture(params=TARGETS)
def detector(request: pytest.FixtureRequest, tiny_bundle: Bundles) -> gr.Detector:
    """Of a tiny fp32 bundle of each target."""
    return gr.load(tiny_bundle(request.param, "fp32"))


@pytest.fixture
def photos(example_photos: list[Photo]) -> list[Photo]:
    """64 photos: the examples, and the same mirrored, turned and in other colours."""
    seen = example_photos[:16]
    return [
        *seen,
        *(photo[:, ::-1] for photo in seen),
        *(photo[::-1].transpose(1, 0, 2) for photo in seen),
        *(photo[..., ::-1] for photo in seen),
    ]


def inputs(photos: list[Photo]) -> FloatArray:
    return to_input(photos, Preprocessing(TINY_SIZE))


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("count", [1, 2, 5, 7, 33, 64])
def test_blocks_give_what_one_call_gives(count: int, detector: gr.Detector, photos: list[Photo]) -> None:
    images = inputs(photos[:count])
    assert detector.streams(count) == (count > 4)
    whole = detector.session.infer({"images": images})["maps"]
    np.testing.assert_allclose(infer_group(detector.session, detector.bundle.manifest, images), whole, atol=1e-5)


@pytest.mark.usefixtures("small_blocks")
def test_a_large_group_has_maps_of_its_photos_sizes_and_tells_how_far_it_is(
    detector: gr.Detector, photos: list[Photo], monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[str, int, int]] = []
    streamed = list(detector.stream(photos[:8], lambda *step: told.append(step)))
    assert [(stage, done) for stage, done, _ in told] == [
        *(("encode", done) for done in (3, 6, 8)), *(("draw", done) for done in range(1, 9))
    ]  # fmt: skip
    assert [saliency.shape for saliency in streamed] == [photo.shape[:2] for photo in photos[:8]]
    by_groups = list(detector.detect_groups([photos[:2], photos[:8], photos[2:4]]))
    assert [len(group) for group in by_groups] == [2, 8, 2]
    monkeypatch.undo()
    for streams, in_groups, whole in zip(streamed, by_groups[1], detector.detect(photos[:8]), strict=True):
        np.testing.assert_allclose(streams, whole, atol=1e-5)
        np.testing.assert_allclose(in_groups, whole, atol=1e-5)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("count", [1, 2, 4, 7])
def test_consensus_and_attention_are_the_eager_networks(
    count: int, detector: gr.Detector, tiny_network: GCoNet, photos: list[Photo]
) -> None:
    with torch.inference_mode():
        expected = tiny_network.consensus(torch.from_numpy(inputs(photos[:count])))
    consensus = detector.consensus(photos[:count])
    assert (consensus.dtype, consensus.shape) == (np.float32, (TINY.encoder_channels[-1],))
    np.testing.assert_allclose(consensus, expected.consensus.flatten(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(detector.attention(photos[:count]), expected.attention[:, 0], atol=1e-6)


@pytest.mark.usefixtures("small_blocks")
def test_photos_added_one_by_one_give_the_consensus_of_all(detector: gr.Detector, photos: list[Photo]) -> None:
    builder = gr.ConsensusBuilder(detector)
    with pytest.raises(gr.UsageError, match="at least one photo"):
        builder.consensus()
    for count, photo in enumerate(photos[:7], 1):
        builder.add(photo)
        assert len(builder) == count
        np.testing.assert_allclose(builder.consensus(), detector.consensus(photos[:count]), rtol=1e-5, atol=1e-6)
    builder.add(*photos[7:12])
    np.testing.assert_allclose(builder.consensus(), detector.consensus(photos[:12]), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(builder.attention(), detector.attention(photos[:12]), atol=1e-6)


def test_a_photo_that_cannot_be_read_leaves_the_builder_as_it_was(
    detector: gr.Detector, photos: list[Photo], tmp_path: Path
) -> None:
    builder = gr.ConsensusBuilder(detector)
    builder.add(*photos[:2])
    (tmp_path / "broken.jpg").write_bytes(b"no photo")
    with pytest.raises(gr.PhotoError, match=r"broken\.jpg"):
        builder.add(tmp_path / "broken.jpg")
    builder.add(photos[2])
    np.testing.assert_allclose(builder.consensus(), detector.consensus(photos[:3]), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("disk", [True, False], ids=["disk", "engine"])
def test_a_builder_is_as_it_was_when_adding_a_photo_fails_halfway(
    disk: bool, detector: gr.Detector, photos: list[Photo], monkeypatch: pytest.MonkeyPatch
) -> None:
    builder = gr.ConsensusBuilder(detector)
    builder.add(*photos[:2])
    with monkeypatch.context() as patch:
        write, run, written = Column.append, type(detector.session).run, list[Column]()

        def no_room_for_the_second(column: Column, *arguments: Any) -> None:
            written.append(column)
            if len(written) == 2:
                raise gr.UsageError("no room")
            write(column, *arguments)

        def fail_to_compare(session: Any, graph: str, inputs: Any) -> Any:
            if graph == "agree":
                raise gr.TargetError("no memory")
            return run(session, graph, inputs)

        if disk:
            patch.setattr(Column, "append", no_room_for_the_second)
        else:
            patch.setattr(type(detector.session), "run", fail_to_compare)
        with pytest.raises(gr.GconetError, match=r"no (room|memory)"):
            builder.add(photos[5])
    assert len(builder) == 2
    np.testing.assert_allclose(builder.consensus(), detector.consensus(photos[:2]), rtol=1e-5, atol=1e-6)
    builder.add(photos[2])
    np.testing.assert_allclose(builder.consensus(), detector.consensus(photos[:3]), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("as_given", [np.float64, list], ids=["float64", "list"])
def test_a_consensus_of_other_numbers_is_found_all_the_same(
    as_given: Any, detector: gr.Detector, photos: list[Photo]
) -> None:
    shared = detector.consensus(photos[:2])
    for saliency, expected in zip(
        detector.segment(photos[:2], as_given(shared)), detector.segment(photos[:2], shared), strict=True
    ):
        np.testing.assert_array_equal(saliency, expected)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("count", [1, 2, 7])
def test_segmenting_against_the_groups_consensus_is_detecting(
    count: int, detector: gr.Detector, photos: list[Photo]
) -> None:
    found = detector.segment(photos[:count], detector.consensus(photos[:count]))
    for segmented, detected in zip(found, detector.detect(photos[:count]), strict=True):
        np.testing.assert_allclose(segmented, detected, atol=1e-5)


@pytest.mark.usefixtures("small_blocks")
def test_a_photos_map_against_a_consensus_does_not_depend_on_the_others(
    detector: gr.Detector, photos: list[Photo]
) -> None:
    consensus = detector.consensus(photos[:3])
    together = detector.segment(photos[3:8], consensus)
    for photo, saliency in zip(photos[3:8], together, strict=True):
        np.testing.assert_allclose(detector.segment([photo], consensus)[0], saliency, atol=1e-6)
    with pytest.raises(gr.UsageError, match=r"shape \(16,\), not \(3,\)"):
        detector.segment(photos[:1], np.zeros(3, np.float32))


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("target", TARGETS)
def test_a_network_without_gam_streams_too(target: str, photos: list[Photo], tmp_path: Path) -> None:
    architecture = dataclasses.replace(TINY, gam=False)
    model = random_checkpoint(seed=3, architecture=architecture).network()
    graph = export_detect(model, TINY_SIZE)
    assert sorted(cut(graph)) == ["consensus", "detect", "draw", "encode", "pool", "segment"]
    builder = get_target(target)
    with staged_bundle(tmp_path / "average.gconet") as folder:
        files = describe_files(builder.build(graph, EngineSpec("fp32", TINY_MAX_GROUP), folder))
        manifest = gr.Manifest(
            target, "fp32", builder.version(), Preprocessing(TINY_SIZE), TINY_MAX_GROUP, files,
            dataclasses.asdict(architecture), {"provenance": "tests"}, 18, "2026-01-01T00:00:00+00:00",
        )  # fmt: skip
        write_manifest(folder, manifest)
    detector = gr.load(tmp_path / "average.gconet")
    images = inputs(photos[:8])
    whole = detector.session.infer({"images": images})["maps"]
    np.testing.assert_allclose(infer_group(detector.session, detector.bundle.manifest, images), whole, atol=1e-5)
    assert np.ptp(detector.attention(photos[:5])) == 0


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("precision", ["bf16", "int8"])
def test_engines_that_compute_in_bf16_keep_features_in_half_the_room(
    precision: str, tiny_bundle: Bundles, photos: list[Photo]
) -> None:
    if get_target("openvino").preferred_precision() != "bf16":
        pytest.skip("this CPU has no bf16 instructions")
    detector = gr.load(tiny_bundle("openvino", precision))
    images = inputs(photos[:8])
    session = graph_session(detector.session, "encode")
    assert {
        array.dtype for name, array in session.run("encode", {"images": images}).items() if name in INNER_TENSORS
    } == {np.dtype(np.uint16)}
    whole = session.infer({"images": images})["maps"]
    assert np.abs(infer_group(session, detector.bundle.manifest, images) - whole).mean() < 5e-3


def test_a_bundle_without_parts_says_what_makes_them(tiny_bundle: Bundles, photos: list[Photo]) -> None:
    class OneGraph:
        max_group = None

        def infer(self, inputs: Any) -> Any:
            raise AssertionError(inputs)

    detector = gr.Detector(gr.open_bundle(tiny_bundle("onnxruntime", "fp32")), OneGraph())
    for ask in (detector.consensus, detector.attention):
        with pytest.raises(gr.BundleError, match=r"has no graph `consensus`.*build it again"):
            ask(photos[:2])
    with pytest.raises(gr.BundleError, match="has no graph `encode`"):
        gr.ConsensusBuilder(detector)


@pytest.mark.parametrize("dtype", [np.float32, np.uint16])
def test_a_column_keeps_every_bit(dtype: type[np.generic], rng: np.random.Generator) -> None:
    values = rng.integers(0, 2**16, (5, 3)).astype(dtype)
    column = Column((3,), values.dtype)
    column.append(values[:2])
    column.append(values[2:])
    assert len(column) == 5
    np.testing.assert_array_equal(column.read(1, 9), values[1:])
    assert column.read(1, 3).dtype == dtype


def test_a_disk_too_full_for_a_file_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setattr("tempfile._candidate_tempdir_list", lambda: ["/proc/nowhere"])
    with pytest.raises(gr.UsageError, match=r"no room for the features .*No usable temporary directory.*TMPDIR"):
        Column((1000,), np.dtype(np.float32))


def test_a_full_disk_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with Path("/dev/full").open("r+b") as full:
        monkeypatch.setattr("tempfile.TemporaryFile", lambda: full)
        column = Column((1000,), np.dtype(np.float32))
        with pytest.raises(gr.UsageError, match=r"no room for the features .*TMPDIR"):
            column.append(np.zeros((100, 1000), np.float32))
