"""The demo page without a browser: limits, findings, what changes, the ZIP, and the command around it."""

from __future__ import annotations

import contextlib
import io
import shutil
import socket
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from html_page import Page
from PIL import Image

import gconet.runtime as gr
from gconet.runtime import cli, command_line, demo_command
from gconet.runtime.demo_command import is_loopback
from gconet.runtime.demo_group import SHAPES, Findings, Seen, Visit, compare, find, write_zip
from gconet.runtime.demo_results import change_html, findings_html, messages_html
from gconet.runtime.demo_uploads import Limits, Upload, accept_uploads, shown_name
from gconet.runtime.detector import Detector
from gconet.runtime.errors import UsageError
from gconet.runtime.preprocess import FloatArray, Photo

pytest.importorskip("matplotlib", reason="pictures need matplotlib: pip install 'gconet-deploy[pictures]'")
pytest.importorskip("cv2", reason="cut-outs need OpenCV: pip install 'gconet-deploy[pictures]'")

LIMITS = Limits(photos=4, pixels=400_000, megabytes=0.5)


@pytest.fixture
def detector(tiny_bundle: Callable[[str, str], Path]) -> Detector:
    return gr.load(tiny_bundle("onnxruntime", "fp32"), threads=1)


@pytest.fixture
def visit(tmp_path: Path) -> Visit:
    (tmp_path / "visit").mkdir()
    return Visit(tmp_path / "visit")


@pytest.fixture
def files(tmp_path: Path, example_photos: list[Photo]) -> list[Path]:
    """Three photos of different sizes as uploaded, two of one name, in folders of their own as Gradio keeps them."""
    paths = [tmp_path / folder / name for folder, name in (("x", "a.jpg"), ("y", "a.jpg"), ("z", "<b>&.png"))]
    for path, photo, step in zip(paths, example_photos, (2, 3, 4), strict=False):
        path.parent.mkdir()
        Image.fromarray(photo[::step, ::2]).save(path)
    return paths


def bomb(path: Path) -> Path:
    """A PNG of few bytes and many pixels."""
    Image.new("1", (30_000, 30_000)).save(path)
    return path


def test_photos_are_taken_under_numbers_and_shown_under_their_names(visit: Visit, files: list[Path]) -> None:
    assert visit.add(files, LIMITS) == []
    assert [upload.label for upload in visit.uploads] == ["a.jpg", "a.jpg (2)", "<b>&.png"]
    assert [upload.path for upload in visit.uploads] == [visit.folder / name for name in "123"]
    assert sorted(path.name for path in visit.folder.iterdir()) == ["1", "2", "3"]
    assert (visit.folder / "1").read_bytes() == files[0].read_bytes()
    assert [upload.slug for upload in visit.uploads] == ["01-a", "02-a", "03-b"]
    assert visit.add(files[:1], LIMITS) == []
    assert (visit.uploads[3].label, visit.uploads[3].path.name) == ("a.jpg (3)", "4")


def test_files_that_cannot_be_photos_get_a_line_each_and_the_others_are_taken(
    visit: Visit, files: list[Path], tmp_path: Path, rng: np.random.Generator
) -> None:
    bad = {name: tmp_path / name for name in ("text.jpg", "empty.png", "cut.jpg", "large.png", "bomb.png", "wide.png")}
    bad["text.jpg"].write_text("not a photo")
    bad["empty.png"].write_bytes(b"")
    bad["cut.jpg"].write_bytes(files[0].read_bytes()[:-2000])
    Image.fromarray(rng.integers(0, 256, (500, 500, 3), dtype=np.uint8)).save(bad["large.png"])
    bomb(bad["bomb.png"])
    Image.new("L", (1000, 401)).save(bad["wide.png"])
    lines = visit.add([*bad.values(), tmp_path / "absent.jpg", files[0]], LIMITS)
    assert [upload.label for upload in visit.uploads] == ["a.jpg"]
    assert len(lines) == 7
    assert not any(str(tmp_path) in line for line in lines)
    for line, mention in zip(
        lines,
        ("is not a photo", "is not a photo", "cannot be read", "MB, more than 0.5", "too many pixels",
         "1000×401 pixels, more than 0.4 million", "gone"),
        strict=True,
    ):  # fmt: skip
        assert mention in line
    assert [line.split()[0].rstrip(":") for line in lines] == [*bad, "absent.jpg"]
    assert [path.name for path in visit.folder.iterdir()] == ["1"]


def test_a_photo_that_finds_no_room_on_the_disk_gets_a_line(
    visit: Visit, files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    copyfile = shutil.copyfile

    def fill(source: Path, target: Path) -> None:
        copyfile(source, target)
        if source == files[0]:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", fill)
    (line,) = visit.add(files, LIMITS)
    assert line == "a.jpg cannot be kept on this machine (No space left on device): upload it again later"
    assert [upload.label for upload in visit.uploads] == ["a.jpg", "<b>&.png"]
    assert sorted(path.name for path in visit.folder.iterdir()) == ["2", "3"]


def test_a_group_has_no_more_photos_than_allowed(visit: Visit, files: list[Path]) -> None:
    lines = visit.add([*files, *files], LIMITS)
    assert len(visit.uploads) == 4
    assert len(lines) == 2
    assert all("at most 4 photos" in line for line in lines)


def test_limits_are_told_in_the_units_people_use() -> None:
    assert LIMITS.sentence().startswith("Up to 4 photos, each of up to 0.5 MB and 0.4 megapixels")
    assert Limits(megabytes=20).bytes == 20_000_000


def test_names_are_shown_on_one_line_and_never_become_paths(tmp_path: Path) -> None:
    assert shown_name(Path("a\nb\x1b[31m.jpg")) == "a?b?[31m.jpg"
    assert len(shown_name(Path("n" * 300))) <= 61
    for name in ("../../etc/passwd", "..", ".hidden.png", "", "CON.png", "a/b\\c.png", "日本.png", "-rf.png"):
        slug = Upload(tmp_path / "7", name).slug
        assert slug.startswith("07-")
        assert set(slug) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")
    assert accept_uploads([], tmp_path, [], LIMITS) == ([], [])


def test_findings_are_the_detectors(visit: Visit, files: list[Path], detector: Detector) -> None:
    visit.add(files, LIMITS)
    findings, change = visit.find(detector, ["a.jpg", "<b>&.png"])
    assert change is None
    paths = [visit.uploads[0].path, visit.uploads[2].path]
    np.testing.assert_array_equal(findings.consensus, detector.consensus(paths))
    assert [one.upload.label for one in findings.seen] == ["a.jpg", "<b>&.png"]
    for one, saliency, attention in zip(findings.seen, detector.detect(paths), detector.attention(paths), strict=True):
        assert one.saliency.mean() == pytest.approx(saliency.mean(), abs=2e-3)
        np.testing.assert_array_equal(one.attention, attention)
        assert one.picture.shape[:2] == one.saliency.shape
        assert -1 <= one.agreement <= 1
        assert len(one.thumbnails) == (0 if one.alpha is None else len(SHAPES))
        for picture, shape in zip(one.thumbnails, SHAPES, strict=False):
            assert picture.shape == (*shape.pixels[::-1], 3)


def test_one_photo_agrees_with_itself(visit: Visit, files: list[Path], detector: Detector) -> None:
    visit.add(files[:1], LIMITS)
    findings, _ = visit.find(detector, ["a.jpg"])
    assert findings.seen[0].agreement == pytest.approx(1, abs=1e-5)


def test_leaving_a_photo_out_changes_consensus_and_maps(visit: Visit, files: list[Path], detector: Detector) -> None:
    visit.add(files, LIMITS)
    labels = [upload.label for upload in visit.uploads]
    first, _ = visit.find(detector, labels)
    again, same = visit.find(detector, labels)
    assert same is not None
    assert same.cosine == pytest.approx(1, abs=1e-6)
    assert set(same.maps.values()) == {0.0}
    without, change = visit.find(detector, labels[:2])
    assert change is not None
    assert (change.before, change.after) == (3, 2)
    assert change.cosine < 1 - 1e-7
    assert set(change.maps) == set(labels[:2])
    assert max(change.maps.values()) > 0
    np.testing.assert_array_equal(again.consensus, first.consensus)
    assert set(visit.alone) == {upload.path for upload in visit.uploads}
    assert len(without.seen) == 2


def test_an_empty_group_is_a_line(visit: Visit, files: list[Path], detector: Detector, tmp_path: Path) -> None:
    visit.add(files, LIMITS)
    with pytest.raises(UsageError, match="the group is empty"):
        visit.find(detector, ["no such label"])
    with pytest.raises(UsageError, match="the group is empty"):
        write_zip(detector, [], tmp_path / "z.zip")


class Dark:
    """A detector that finds nothing in photos whose number is even."""

    def __init__(self, detector: Detector) -> None:
        self._detector = detector

    def __getattr__(self, name: str) -> object:
        return getattr(self._detector, name)

    def stream(self, photos: list[Path]) -> list[FloatArray]:
        maps = []
        for path in photos:
            height, width = _shape(path)
            saliency = np.zeros((height, width), np.float32)
            if int(path.name) % 2:
                saliency[height // 4 : height // 2, width // 4 : width // 2] = 1
            maps.append(saliency)
        return maps


def _shape(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.height, image.width


def test_a_photo_in_which_nothing_is_found_is_told_and_kept(
    visit: Visit, files: list[Path], detector: Detector, tmp_path: Path
) -> None:
    visit.add(files, LIMITS)
    dark: Detector = Dark(detector)  # type: ignore[assignment]
    findings = find(dark, visit.uploads, {})
    assert [one.alpha is None for one in findings.seen] == [False, True, False]
    assert findings.seen[1].thumbnails == ()
    page = Page(findings_html(findings))
    assert "a.jpg (2): nothing co-salient found" in page.text
    write_zip(dark, visit.uploads, tmp_path / "z.zip")
    with zipfile.ZipFile(tmp_path / "z.zip") as archive:
        assert archive.read("contents.txt").decode() == (
            "01-a: a.jpg\n02-a: a.jpg (2): nothing found\n03-b: <b>&.png\n"
        )
        assert set(archive.namelist()) == {
            "contents.txt",
            *(f"maps/{name}.png" for name in ("01-a", "02-a", "03-b")),
            *(f"cutouts/{name}.png" for name in ("01-a", "03-b")),
            *(f"thumbnails/{name}-{shape}.png" for name in ("01-a", "03-b") for shape in ("1x1", "4x3")),
        }
        for upload, name in zip(visit.uploads, ("01-a", "02-a", "03-b"), strict=True):
            with Image.open(io.BytesIO(archive.read(f"maps/{name}.png"))) as saliency:
                assert (saliency.height, saliency.width) == _shape(upload.path)
        with Image.open(io.BytesIO(archive.read("cutouts/01-a.png"))) as picture:
            assert picture.mode == "RGBA"
            assert np.asarray(picture)[..., 3].max() == 255
        with Image.open(io.BytesIO(archive.read("thumbnails/03-b-4x3.png"))) as picture:
            assert picture.size == SHAPES[1].pixels


def test_the_pages_html_is_escaped_and_refers_to_nothing(visit: Visit, files: list[Path], detector: Detector) -> None:
    visit.add(files, LIMITS)
    findings, _ = visit.find(detector, [upload.label for upload in visit.uploads])
    page = Page(findings_html(findings))
    assert "<b>&.png" in page.text
    assert page.attributes_of("b", "script") == []
    assert all(link.startswith("data:image/") for link in page.links)
    assert {image["alt"] for image in page.attributes_of("img")} >= {
        f"{kind} of <b>&.png" for kind in ("photo", "attention", "map", "overlay")
    }
    assert Page(messages_html(["<script>x</script>"])).text == "<script>x</script>"
    assert messages_html([]) == ""


def test_changes_are_told_largest_first() -> None:
    def seen(label: str, level: float) -> Seen:
        saliency = np.full((80, 90), level, np.float32)
        picture = np.zeros((80, 90, 3), np.uint8)
        return Seen(Upload(Path("1"), label), picture, saliency, np.ones((2, 2), np.float32), None, (), 1.0)

    before = Findings((seen("a", 0.5), seen("b", 0.25), seen("c", 0)), np.array([1, 0], np.float32))
    after = Findings((seen("a", 0.25), seen("b", 0.75)), np.array([1, 1], np.float32))
    change = compare(before, after)
    assert change.cosine == pytest.approx(np.sqrt(0.5))
    assert dict(change.maps) == pytest.approx({"a": 0.25, "b": 0.5})
    text = Page(change_html(after, change)).text
    assert "cosine 0.707" in text
    assert text.index("0.500") < text.index("0.250")
    assert "which had 3; now 2 photos" in text
    assert "A group of 2 photos." in Page(change_html(after, None)).text


def test_a_visit_that_is_over_leaves_nothing_and_is_told(files: list[Path], detector: Detector, tmp_path: Path) -> None:
    pytest.importorskip("gradio", reason="the page needs Gradio: pip install 'gconet-deploy[demo]'")
    from gconet.runtime.demo_page import GONE, DemoPage

    (tmp_path / "visits").mkdir()
    page = DemoPage(detector, LIMITS, tmp_path / "visits")
    token, _, _, ticked, messages, *_ = page.add([str(file) for file in files], [], None)
    assert messages == ""
    assert ticked["value"] == ["a.jpg", "a.jpg (2)", "<b>&.png"]
    other = page.add([str(files[0])], [], None)[0]
    assert other != token
    assert len(list((tmp_path / "visits").iterdir())) == 2
    _, _, archive = page.pack(ticked["value"][:1], token)
    assert zipfile.is_zipfile(archive["value"])

    page.forget(token)
    assert [folder.name for folder in (tmp_path / "visits").iterdir()] == [other]
    for said in (page.choose(["a.jpg"], token)[4], page.choose(["a.jpg"], None)[4], page.pack(["a.jpg"], None)[1]):
        assert GONE in Page(said).text
    assert GONE in Page(page.add([], ["a.jpg"], None)[4]).text
    assert page.clear(other)[0] is None
    assert not (tmp_path / "visits" / other).exists()


def test_loopback_is_told_from_the_rest() -> None:
    assert all(map(is_loopback, ("127.0.0.1", "127.8.8.8", "::1", "localhost")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "192.168.1.2", "example.org", "")))


@pytest.mark.parametrize(
    ("arguments", "mention"),
    [
        (["--port", "65536"], "--port"),
        (["--max-photos", "0"], "--max-photos"),
        (["--max-pixels", "999999999"], "--max-pixels"),
        (["--max-megabytes", "-1"], "--max-megabytes"),
        (["--bundle", "absent"], "no bundle at absent"),
    ],
)
def test_a_mistake_is_one_line(arguments: list[str], mention: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        code = command_line.run(cli.main, ["demo", *arguments])
    except SystemExit as leaving:
        code = int(leaving.code or 0)
    out, err = capsys.readouterr()
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert mention in err


def test_a_port_that_is_taken_is_one_line(
    tiny_bundle: Callable[[str, str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
        bundle = tiny_bundle("onnxruntime", "fp32")
        assert command_line.run(cli.main, ["demo", "--bundle", str(bundle), "--port", str(port)]) == 2
    assert f"cannot listen on 127.0.0.1, port {port}" in capsys.readouterr().err
    with pytest.raises(UsageError, match=r"cannot listen on nowhere\.invalid"):
        demo_command._free_port("nowhere.invalid", 0)
