"""The detector against the eager network with plain post-processing, through every engine of the runtime."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import gconet.runtime as gr
from gconet.runtime.bundle import describe_file
from gconet.runtime.manifest import MANIFEST_NAME
from gconet.runtime.preprocess import MAX_SIZE, FloatArray, Photo, Preprocessing, to_input
from gconet.runtime.session import DEVICES, Tensors
from gconet.train.model import GCoNet

BundleMaker = Callable[[str, str], Path]
CPU_TARGETS = [target for target, kinds in DEVICES.items() if "cpu" in kinds]
SOURCE = Path(__file__).resolve().parents[1] / "src"


@pytest.fixture(scope="module", params=CPU_TARGETS)
def detector(request: pytest.FixtureRequest, tiny_bundle: BundleMaker) -> gr.Detector:
    """The tiny network in fp32, once per engine."""
    return gr.load(tiny_bundle(request.param, "fp32"), threads=2)


@pytest.fixture(scope="module")
def onnxruntime_bundle(tiny_bundle: BundleMaker) -> Path:
    """A bundle for errors that come before any engine."""
    return tiny_bundle("onnxruntime", "fp32")


def eager_maps(network: GCoNet, photos: Sequence[Photo], preprocessing: Preprocessing) -> list[FloatArray]:
    """The network's maps, enlarged to the photos' sizes by torch in double precision."""
    with torch.inference_mode():
        maps = network(torch.from_numpy(to_input(photos, preprocessing))).double()
    return [
        torch.nn.functional.interpolate(saliency[None], photo.shape[:2], mode="bilinear", align_corners=True)[0, 0]
        .float()
        .numpy()
        for saliency, photo in zip(maps, photos, strict=True)
    ]


@pytest.mark.parametrize("count", [1, 2, 5])
def test_maps_equal_the_eager_networks_at_the_photos_own_sizes(
    count: int, detector: gr.Detector, tiny_network: GCoNet, example_photos: list[Photo]
) -> None:
    photos = example_photos[:count]
    maps = detector.detect(photos)
    expected = eager_maps(tiny_network, photos, detector.bundle.manifest.preprocessing)
    assert [saliency.shape for saliency in maps] == [photo.shape[:2] for photo in photos]
    for saliency, reference in zip(maps, expected, strict=True):
        assert saliency.dtype == np.float32
        assert saliency.min() >= 0
        assert saliency.max() <= 1
        np.testing.assert_allclose(saliency, reference, rtol=0, atol=1e-4)
        assert np.ptp(reference) > 0.01  # the comparison means something


def test_paths_and_arrays_give_the_same_maps(
    detector: gr.Detector, example_photos: list[Photo], tmp_path: Path
) -> None:
    paths = [tmp_path / "a.png", tmp_path / "b.png"]
    for path, photo in zip(paths, example_photos, strict=False):
        Image.fromarray(photo).save(path)
    from_arrays = detector.detect(example_photos[:2])
    groups: list[list[str | Path | Photo]] = [[str(paths[0]), paths[1]], [paths[0], example_photos[1]]]
    for photos in groups:
        for saliency, expected in zip(detector.detect(photos), from_arrays, strict=True):
            np.testing.assert_array_equal(saliency, expected)


def test_groups_after_one_another_are_the_groups_one_by_one(
    detector: gr.Detector, example_photos: list[Photo], tmp_path: Path
) -> None:
    groups: list[list[Photo | Path]] = [example_photos[:2], example_photos[2:3], example_photos[3:6]]
    for maps, photos in zip(detector.detect_groups(groups), groups, strict=True):
        for saliency, expected in zip(maps, detector.detect(photos), strict=True):
            np.testing.assert_array_equal(saliency, expected)
    results = detector.detect_groups([groups[0], [tmp_path / "absent.jpg"], groups[2]])
    assert len(next(results)) == 2
    with pytest.raises(gr.PhotoError, match=r"absent\.jpg"):
        next(results)


def test_a_map_depends_on_the_other_photos_of_the_group(detector: gr.Detector, example_photos: list[Photo]) -> None:
    photo, friend, stranger = example_photos[0], example_photos[1], example_photos[-1]
    with_friend, with_stranger = (detector.detect([photo, other])[0] for other in (friend, stranger))
    assert np.abs(with_friend - with_stranger).max() > 1e-3


def test_maps_follow_the_order_of_the_photos(detector: gr.Detector, example_photos: list[Photo]) -> None:
    photos = example_photos[:3]
    forwards, backwards = detector.detect(photos), detector.detect(photos[::-1])
    for saliency, expected in zip(backwards[::-1], forwards, strict=True):
        np.testing.assert_allclose(saliency, expected, rtol=0, atol=1e-5)


def test_a_view_of_an_array_is_as_good_as_its_copy(detector: gr.Detector, example_photos: list[Photo]) -> None:
    views = [photo[::-2, ::-3] for photo in example_photos[:2]]
    copies = [np.ascontiguousarray(view) for view in views]
    for saliency, expected in zip(detector.detect(views), detector.detect(copies), strict=True):
        np.testing.assert_array_equal(saliency, expected)


def test_calls_from_many_threads_equal_calls_in_turn(detector: gr.Detector, example_photos: list[Photo]) -> None:
    # More group sizes than an engine keeps compiled, and every one of them several times.
    groups = [example_photos[start : start + count] for count in (1, 2, 3, 4, 5, 6) for start in (0, 3, 6)]
    in_turn = [detector.detect(group) for group in groups]
    with ThreadPoolExecutor(4) as threads:
        at_once = list(threads.map(detector.detect, groups))
    for maps, expected in zip(at_once, in_turn, strict=True):
        for saliency, reference in zip(maps, expected, strict=True):
            np.testing.assert_array_equal(saliency, reference)


@pytest.mark.parametrize(
    "photos",
    [
        [np.zeros((4, 4, 3), np.float32)],
        [np.zeros((4, 4, 4), np.uint8)],
        [np.zeros((4, 4), np.uint8)],
        [np.zeros((0, 4, 3), np.uint8)],
        np.zeros((4, 4, 3), np.uint8),
        [np.zeros((4, 4, 3), np.uint8), np.zeros((3, 4, 4), np.uint8)],
        ["absent.jpg"],
    ],
    ids=["float", "four channels", "grey", "empty", "one photo, no list", "channels first", "absent"],
)
def test_what_is_no_photo_is_a_photo_error(photos: Any, detector: gr.Detector) -> None:
    with pytest.raises(gr.PhotoError):
        detector.detect(photos)


@pytest.mark.parametrize("photos", [[], (), np.zeros((0, 4, 4, 3), np.uint8)], ids=["list", "tuple", "array"])
def test_an_empty_group_is_a_usage_error(photos: Any, detector: gr.Detector) -> None:
    with pytest.raises(gr.UsageError, match="at least one photo"):
        detector.detect(photos)


@pytest.mark.parametrize("path", ["a.jpg", Path("a.jpg")], ids=repr)
def test_one_path_in_place_of_a_list_is_a_usage_error(path: Any, detector: gr.Detector) -> None:
    with pytest.raises(gr.UsageError, match=r"list of photos.* a\.jpg"):
        detector.detect(path)


def test_photos_stacked_in_one_array_are_a_group(detector: gr.Detector, rng: np.random.Generator) -> None:
    photos = rng.integers(0, 256, (2, 30, 40, 3), np.uint8)
    for saliency, expected in zip(detector.detect(photos), detector.detect(list(photos)), strict=True):  # type: ignore[arg-type]
        np.testing.assert_array_equal(saliency, expected)


class PlanForTwo:
    """An engine compiled for groups of up to two photos."""

    max_group: int | None = 2

    def infer(self, inputs: Tensors) -> Tensors:
        """Black maps."""
        return {"maps": np.zeros_like(inputs["images"][:, :1])}


def test_a_group_larger_than_a_plan_is_a_usage_error_with_the_command_that_mends_it(
    onnxruntime_bundle: Path, example_photos: list[Photo]
) -> None:
    detector = gr.Detector(gr.open_bundle(onnxruntime_bundle), PlanForTwo())
    assert len(detector.detect(example_photos[:2])) == 2
    with pytest.raises(gr.UsageError, match=r"3 photos.*up to 2.*--max-group 3"):
        detector.detect(example_photos[:3])


class AnySize(PlanForTwo):
    """An engine with a free group axis."""

    max_group: int | None = None


def test_a_group_whose_affinity_outgrows_memory_is_refused_with_the_largest_that_fits(onnxruntime_bundle: Path) -> None:
    bundle = gr.open_bundle(onnxruntime_bundle)
    manifest = dataclasses.replace(bundle.manifest, preprocessing=Preprocessing(224), max_group=64)
    detector = gr.Detector(gr.Bundle(bundle.folder, manifest), AnySize())
    photo = np.zeros((1, 1, 3), np.uint8)
    assert len(detector.detect([photo] * 66)) == 66
    detector.check_count(228)
    with pytest.raises(gr.UsageError, match=r"300 photos needs about 14 GB .* groups of at most 228$"):
        detector.detect([photo] * 300)
    with pytest.raises(gr.UsageError, match="at most 228"):
        detector.check_count(229)


def test_one_photo_of_the_largest_size_fits(onnxruntime_bundle: Path) -> None:
    bundle = gr.open_bundle(onnxruntime_bundle)
    manifest = dataclasses.replace(bundle.manifest, preprocessing=Preprocessing(MAX_SIZE))
    gr.Detector(gr.Bundle(bundle.folder, manifest), AnySize()).check_count(1)


def test_an_engine_that_fails_is_a_target_error_of_one_line_and_goes_on(
    detector: gr.Detector, example_photos: list[Photo]
) -> None:
    expected = detector.detect(example_photos[:2])
    with pytest.raises(gr.TargetError, match=r"cannot run a group of 3 photos: \S") as caught:
        detector.session.infer({"images": np.zeros((3, 4, 64, 64), np.float32)})  # four channels
    assert "\n" not in str(caught.value)
    for saliency, reference in zip(detector.detect(example_photos[:2]), expected, strict=True):
        np.testing.assert_array_equal(saliency, reference)
    assert len(detector.detect(example_photos[:7])) == 7


@pytest.mark.parametrize("threads", [0, -1])
def test_threads_below_one_are_a_usage_error(threads: int, onnxruntime_bundle: Path) -> None:
    with pytest.raises(gr.UsageError, match=f"threads must be at least 1, got {threads}"):
        gr.load(onnxruntime_bundle, threads=threads)


@pytest.mark.parametrize("target", CPU_TARGETS)
def test_an_unknown_device_is_a_target_error(target: str, tiny_bundle: BundleMaker) -> None:
    with pytest.raises(gr.TargetError, match="not 'toaster'"):
        gr.load(tiny_bundle(target, "fp32"), device="toaster")


def changed_manifest(bundle: Path, folder: Path, **changes: Any) -> Path:
    copy = folder / "copy.gconet"
    shutil.copytree(bundle, copy)
    document = json.loads((copy / MANIFEST_NAME).read_text("utf-8"))
    (copy / MANIFEST_NAME).write_text(json.dumps(document | changes), "utf-8")
    return copy


def test_a_target_without_a_session_is_told_in_one_line(onnxruntime_bundle: Path, tmp_path: Path) -> None:
    bundle = changed_manifest(onnxruntime_bundle, tmp_path, target="abacus")
    with pytest.raises(gr.TargetError) as caught:
        gr.load(bundle)
    message = str(caught.value)
    assert message.startswith(f"{bundle} cannot run here")
    assert "update gconet-deploy" in message
    assert "\n" not in message


def test_a_precision_openvino_does_not_have_is_told_with_the_command_that_mends_it(
    tiny_bundle: BundleMaker, tmp_path: Path
) -> None:
    bundle = changed_manifest(tiny_bundle("openvino", "fp32"), tmp_path, precision="fp64")
    with pytest.raises(gr.TargetError, match=r"no fp64 arithmetic.*--precision fp32"):
        gr.load(bundle)


@pytest.mark.parametrize(
    ("target", "suffix"),
    [("onnxruntime", ".onnx"), ("onnxruntime", ".bin"), ("openvino", ".xml"), ("openvino", ".bin")],
)
def test_an_artefact_the_manifest_does_not_vouch_for_is_not_loaded(
    target: str, suffix: str, tiny_bundle: BundleMaker, tmp_path: Path
) -> None:
    bundle = tiny_bundle(target, "fp32")
    files = json.loads((bundle / MANIFEST_NAME).read_text("utf-8"))["files"]
    kept = {name: entry for name, entry in files.items() if not name.endswith(suffix)}
    with pytest.raises(gr.BundleError, match=rf"holds no \w*\{suffix} file"):
        gr.load(changed_manifest(bundle, tmp_path, files=kept))


@pytest.mark.parametrize(("target", "suffix"), [("onnxruntime", ".onnx"), ("openvino", ".xml")])
def test_an_artefact_its_engine_cannot_parse_is_a_bundle_error(
    target: str, suffix: str, tiny_bundle: BundleMaker, tmp_path: Path
) -> None:
    bundle = tiny_bundle(target, "fp32")
    garbage = tmp_path / f"detect{suffix}"
    garbage.write_bytes(b"not a network\n" * 3)
    files = json.loads((bundle / MANIFEST_NAME).read_text("utf-8"))["files"]
    size_and_hash = describe_file(garbage)
    copy = changed_manifest(bundle, tmp_path, files=files | {garbage.name: vars(size_and_hash)})
    shutil.copy(garbage, copy)
    with pytest.raises(gr.BundleError, match="cannot load") as caught:
        gr.load(copy)
    assert "\n" not in str(caught.value)


def test_importing_the_runtime_imports_no_framework_and_no_engine() -> None:
    code = (
        "import sys, gconet.runtime as gr; print('numpy' in sys.modules);"
        "[getattr(gr, name) for name in gr.__all__]; print(*sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    numpy_too, modules = done.stdout.splitlines()
    assert numpy_too == "False"  # before a name is asked for, nothing that takes time
    loaded = set(modules.split())
    assert {"gconet.runtime.detector", "gconet.runtime.consensus_file"} <= loaded
    heavy = {"torch", "onnx", "onnxscript", "onnxruntime", "openvino", "tensorrt", "tensorrt_rtx", "cuda", "pycuda"}
    assert not heavy & loaded
    assert "gconet.runtime.cuda" not in loaded
    assert not [name for name in loaded if name.startswith("gconet.") and not name.startswith("gconet.runtime")]


def test_every_public_name_is_there_and_found_where_it_is_defined() -> None:
    assert sorted(gr._HOMES) == sorted(gr.__all__) == [name for name in dir(gr) if name in gr.__all__]
    for name, home in gr._HOMES.items():
        assert getattr(gr, name).__module__ == home
    with pytest.raises(AttributeError, match="no attribute 'detect'"):
        gr.detect  # noqa: B018
