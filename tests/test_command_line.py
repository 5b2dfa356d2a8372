"""The command `gconet` as a user meets it: files written, exit codes, one line per mistake."""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
from gconet_terminal import Gconet, assert_one_line_error, content, fill_the_disk_at
from PIL import Image

import gconet.runtime as gr
from gconet.runtime import cli, command_line
from gconet.runtime.cli import COMMANDS
from gconet.runtime.preprocess import Photo, to_bytes

SOURCE = Path(__file__).resolve().parents[1] / "src"


@pytest.fixture
def bundle(tiny_bundle: Callable[[str, str], Path]) -> Path:
    return tiny_bundle("onnxruntime", "fp32")


@pytest.fixture
def photos(tmp_path: Path, example_photos: list[Photo]) -> Path:
    """Two groups of two small photos, one of them nested, as lossless files."""
    names = ["cats/a.png", "cats/b c.png", "more/été/a.png", "more/été/z.webp"]
    for name, photo, step in zip(names, example_photos, (5, 6, 7, 8), strict=False):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(photo[::step, ::4]).save(path, lossless=True)
    return tmp_path / "photos"


def test_detect_writes_the_detectors_maps_and_mirrors_the_tree(
    gconet: Gconet, bundle: Path, photos: Path, tmp_path: Path
) -> None:
    before = content(photos)
    outcome = gconet("detect", photos, "--bundle", bundle, "--out", tmp_path / "maps", "--threads", "1")
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out == f"4 maps of 2 groups in {tmp_path / 'maps'}\n"
    assert set(content(tmp_path / "maps")) == {"cats/a.png", "cats/b c.png", "more/été/a.png", "more/été/z.png"}
    assert content(photos) == before

    detector = gr.load(bundle, threads=1)
    for folder in ("cats", "more/été"):
        group = sorted((photos / folder).iterdir())
        for photo, saliency in zip(group, detector.detect(group), strict=True):
            with Image.open(tmp_path / "maps" / folder / f"{photo.stem}.png") as image:
                assert image.format == "PNG"
                assert image.mode == "L"
                assert image.size == Image.open(photo).size
                np.testing.assert_array_equal(np.asarray(image), to_bytes(saliency))


def test_photos_named_one_by_one_are_one_group_at_the_top_of_out(gconet: Gconet, bundle: Path, photos: Path) -> None:
    outcome = gconet("detect", photos / "cats/a.png", photos / "more/été/z.webp", "--bundle", bundle)
    assert (outcome.code, outcome.out) == (0, "2 maps of 1 group in maps\n")
    assert set(content(Path())) == {"maps/a.png", "maps/z.png"}


def test_a_group_beyond_the_verified_size_is_noted(gconet: Gconet, bundle: Path, photos: Path) -> None:
    limit = gr.open_bundle(bundle).manifest.max_group
    for index in range(limit - 1):
        shutil.copy(photos / "cats/a.png", photos / f"cats/copy-{index}.png")
    outcome = gconet("detect", photos / "cats", "--bundle", bundle)
    assert outcome.code == 0
    assert outcome.err == f"note: a group of {limit + 1} photos; {bundle} was verified up to {limit}\n"
    assert len(content(Path("maps"))) == limit + 1


def test_existing_maps_are_replaced_only_with_overwrite(gconet: Gconet, bundle: Path, photos: Path) -> None:
    earlier = Path("maps/more/été/z.png")  # the last of all outputs: nothing before it may be written either
    earlier.parent.mkdir(parents=True)
    earlier.write_bytes(b"precious")
    assert_one_line_error(gconet("detect", photos, "--bundle", bundle), earlier, "--overwrite")
    assert content(Path()) == {str(earlier): b"precious"}
    assert gconet("detect", photos, "--bundle", bundle, "--overwrite").code == 0
    assert len(content(Path("maps"))) == 4
    assert Image.open(earlier).mode == "L"


@pytest.mark.parametrize("flags", [(), ("--overwrite",)])
def test_a_photo_is_never_replaced(flags: tuple[str, ...], gconet: Gconet, bundle: Path, photos: Path) -> None:
    before = content(photos)
    Path("link").symlink_to(photos)
    outcome = gconet("detect", photos / "cats", "--bundle", bundle, "--out", "link/cats", *flags)
    assert_one_line_error(outcome, "would replace a photo", "--out")
    assert content(photos) == before


@pytest.mark.parametrize("damage", [b"", b"not a photo", None], ids=["empty", "text", "truncated"])
def test_a_bad_photo_leaves_nothing_of_its_group(
    damage: bytes | None, gconet: Gconet, bundle: Path, photos: Path
) -> None:
    bad = photos / "cats/b c.png"
    bad.write_bytes(bad.read_bytes()[:-300] if damage is None else damage)
    assert_one_line_error(gconet("detect", photos / "cats", "--bundle", bundle), bad)
    assert content(Path()) == {}


def test_a_map_that_cannot_be_written_leaves_no_partial_file(
    gconet: Gconet, bundle: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill_the_disk(_: Image.Image, path: Path, **__: str) -> None:
        path.write_bytes(b"half a map")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", fill_the_disk)
    assert_one_line_error(gconet("detect", photos, "--bundle", bundle), "No space left on device", "maps/cats/a.png")
    assert content(Path()) == {}


def test_a_full_disk_leaves_no_part_of_a_group(
    gconet: Gconet, bundle: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill_the_disk_at("b c", monkeypatch)
    outcome = gconet("detect", photos, "--bundle", bundle)
    assert_one_line_error(outcome, "No space left on device", "maps/cats/b c.png")
    assert content(Path()) == {}


def test_a_bad_photo_in_the_last_group_keeps_the_groups_before_and_a_rerun_goes_on(
    gconet: Gconet, bundle: Path, photos: Path
) -> None:
    bad = photos / "more/été/z.webp"
    good = bad.read_bytes()
    bad.write_bytes(good[:50])
    outcome = gconet("detect", photos, "--bundle", bundle)
    assert_one_line_error(outcome, bad, "1 group is done; pass --overwrite, or --skip-existing to go on")
    first = content(Path())
    assert set(first) == {"maps/cats/a.png", "maps/cats/b c.png"}

    bad.write_bytes(good)
    assert_one_line_error(gconet("detect", photos, "--bundle", bundle), "exists already", "--skip-existing")
    earlier = Path("maps/cats/a.png").stat()
    outcome = gconet("detect", photos, "--bundle", bundle, "--skip-existing")
    assert (outcome.code, outcome.out) == (0, "2 maps of 1 group in maps; 1 group skipped, with maps already\n")
    assert Path("maps/cats/a.png").stat() == earlier
    assert set(content(Path())) == {*first, "maps/more/été/a.png", "maps/more/été/z.png"}

    outcome = gconet("detect", photos, "--bundle", bundle, "--skip-existing")
    assert (outcome.code, outcome.out) == (0, "0 maps of 0 groups in maps; 2 groups skipped, with maps already\n")


def test_a_group_that_is_half_there_is_computed_only_with_overwrite(gconet: Gconet, bundle: Path, photos: Path) -> None:
    assert gconet("detect", photos, "--bundle", bundle).code == 0
    whole = content(Path())
    Path("maps/cats/b c.png").unlink()
    outcome = gconet("detect", photos, "--bundle", bundle, "--skip-existing")
    assert_one_line_error(outcome, "maps/cats/a.png exists already", "--overwrite")
    outcome = gconet("detect", photos, "--bundle", bundle, "--skip-existing", "--overwrite")
    assert (outcome.code, outcome.out) == (0, "2 maps of 1 group in maps; 1 group skipped, with maps already\n")
    assert content(Path()) == whole


def test_a_group_too_large_for_memory_is_refused_before_any_is_computed(
    gconet: Gconet, bundle: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(photos / "cats/a.png", photos / "more/été/third.png")
    monkeypatch.setattr("gconet.runtime.detector.streams", lambda *_: False)  # as for a bundle of one graph
    monkeypatch.setattr("gconet.runtime.large_groups.MAX_AFFINITY_BYTES", (2 * 4 * 4) ** 2 * 4)  # two of 64 pixels
    assert_one_line_error(gconet("detect", photos, "--bundle", bundle), "more/été", "3 photos", "at most 2")
    assert content(Path()) == {}


def test_a_folder_in_the_place_of_a_map_is_one_line(gconet: Gconet, bundle: Path, photos: Path) -> None:
    Path("maps/cats/b c.png").mkdir(parents=True)
    outcome = gconet("detect", photos, "--bundle", bundle, "--overwrite")
    assert_one_line_error(outcome, "maps/cats/b c.png would replace a folder")
    assert content(Path()) == {}


@pytest.mark.parametrize("option", ["--out", "--bundle"])
def test_a_name_too_long_for_a_file_is_one_line(option: str, gconet: Gconet, bundle: Path, photos: Path) -> None:
    outcome = gconet("detect", photos, "--bundle", bundle, option, "n" * 300)
    assert_one_line_error(outcome, "cannot look at nnn", "name too long")


def test_an_out_that_is_a_file_is_one_line(gconet: Gconet, photos: Path) -> None:
    Path("maps").write_bytes(b"a file")
    for out in ("maps", "maps/below"):
        outcome = gconet("detect", photos, "--bundle", "absent", "--out", out)  # told before the bundle is looked at
        assert_one_line_error(outcome, f"cannot write {out}: maps is no folder; choose another --out")
    assert content(Path()) == {"maps": b"a file"}


def test_an_out_that_may_not_be_written_in_is_told_before_any_work(
    gconet: Gconet, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("mine").mkdir()
    monkeypatch.setattr(os, "access", lambda path, _mode: Path(path) != Path("mine"))
    outcome = gconet("detect", photos, "--bundle", "absent", "--out", "mine/maps")
    assert_one_line_error(outcome, "cannot write mine/maps: mine may not be written in; choose another --out")


def test_complete_maps_may_be_for_reading_only(
    gconet: Gconet, photos: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gconet("detect", photos, "--bundle", bundle, "--out", "mine")
    before = content(Path("mine"))
    monkeypatch.setattr(os, "access", lambda path, _mode: Path(path) != Path("mine"))
    assert gconet("detect", photos, "--bundle", bundle, "--out", "mine", "--skip-existing").code == 0
    assert content(Path("mine")) == before != {}


def test_a_missing_bundle_is_one_line_with_the_command_that_makes_it(gconet: Gconet, photos: Path) -> None:
    assert_one_line_error(gconet("detect", photos), "no bundle at build/gconet.gconet", "gconet build --out")


def test_an_altered_bundle_is_one_line(gconet: Gconet, bundle: Path, photos: Path) -> None:
    copy = Path(shutil.copytree(bundle, "copy.gconet"))
    artefact = copy / "detect.onnx"
    altered = bytearray(artefact.read_bytes())
    altered[len(altered) // 2] ^= 1
    artefact.write_bytes(altered)
    assert_one_line_error(gconet("detect", photos, "--bundle", copy), artefact, "not the file that was built")
    assert not Path("maps").exists()


@pytest.mark.parametrize(
    ("arguments", "mention"),
    [
        (["detect", "absent"], "no photo or folder at absent"),
        (["detect", "."], "no photos in ."),
        (["detect"], "PHOTOS"),
        (["detect", ".", "--frobnicate"], "--frobnicate"),
        (["detect", ".", "--over"], "--over"),
        (["detect", ".", "--threads", "0"], "--threads"),
        (["detect", ".", "--threads", "two"], "--threads"),
        (["frobnicate"], "frobnicate"),
        (["--frobnicate"], "gconet --help"),
        ([], "COMMAND"),
    ],
    ids=" ".join,
)
def test_a_mistake_is_one_line_and_exit_code_2(arguments: list[str], mention: str, gconet: Gconet) -> None:
    assert_one_line_error(gconet(*arguments), mention)
    assert content(Path()) == {}


def test_an_unknown_device_is_one_line(gconet: Gconet, bundle: Path, photos: Path) -> None:
    assert_one_line_error(gconet("detect", photos, "--bundle", bundle, "--device", "toaster"), "toaster")


def test_help_lists_every_command(gconet: Gconet) -> None:
    outcome = gconet("--help")
    assert outcome.code == 0
    listed = dict(line.split(maxsplit=1) for line in outcome.out.partition("commands:\n")[2].splitlines() if line)
    assert {name: listed[name] for name in COMMANDS} == {name: command.summary for name, command in COMMANDS.items()}


def test_version_is_the_distributions(gconet: Gconet) -> None:
    outcome = gconet("--version")
    assert (outcome.code, outcome.err, outcome.out) == (0, "", f"gconet-deploy {metadata.version('gconet-deploy')}\n")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name: str, gconet: Gconet) -> None:
    module, _, function = COMMANDS[name].entry.partition(":")
    assert callable(getattr(importlib.import_module(module), function))
    outcome = gconet(name, "--help")
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.startswith("usage: ")


def test_detects_help_has_examples_and_defaults(gconet: Gconet) -> None:
    text = gconet("detect", "--help").out
    assert "examples:\n  gconet detect " in text
    assert "(default: build/gconet.gconet)" in text


@pytest.mark.parametrize("extra", ["build", ""])
def test_a_command_whose_libraries_are_missing_names_the_install(
    extra: str, gconet: Gconet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "needs_a_framework.py").write_text("import a_framework_nobody_has\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(cli, "COMMANDS", {"mend": cli.Command("needs_a_framework:main", extra, "mend")})
    if extra:
        assert_one_line_error(gconet("mend"), "a_framework_nobody_has", "pip install 'gconet-deploy[build]'")
    else:
        outcome = gconet("mend")
        assert (outcome.code, outcome.err.count("\n")) == (command_line.EXIT_FAULT, 1)
        assert "a_framework_nobody_has" in outcome.err


def test_errors_of_several_lines_are_printed_as_one(capsys: pytest.CaptureFixture[str]) -> None:
    def fail(_: object) -> int:
        raise gr.TargetError("the engine said:\n  no\n\nand left")

    assert command_line.run(fail, []) == 2
    assert capsys.readouterr().err == "gconet: the engine said: no and left\n"


def test_pillows_warnings_of_odd_photos_stay_off_the_terminal(recwarn: pytest.WarningsRecorder) -> None:
    def warn(_: object) -> int:
        warnings.warn_explicit("odd metadata", UserWarning, "TiffImagePlugin.py", 1, module="PIL.TiffImagePlugin")
        return 0

    assert command_line.run(warn, []) == 0
    assert not recwarn.list


def test_an_interrupt_is_exit_code_130_and_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt(_: object) -> int:
        raise KeyboardInterrupt

    assert command_line.run(interrupt, []) == 130
    assert capsys.readouterr().err == "gconet: interrupted\n"


def test_a_reader_that_has_gone_ends_the_command_in_silence() -> None:
    # Output this small reaches the pipe only when it is flushed.
    code = "import sys; from gconet.runtime.command_line import run; sys.stdin.read(); "
    code += "sys.exit(run(lambda _: print(1) or 0, []))"
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [sys.executable, "-c", code], env=environment, stdin=pipe, stdout=pipe, stderr=pipe
    ) as process:
        assert process.stdin
        assert process.stdout
        assert process.stderr
        process.stdout.close()
        process.stdin.close()
        assert (process.stderr.read(), process.wait()) == (b"", 0)


@pytest.mark.parametrize("code", [0, 1])
def test_the_exit_code_of_a_command_is_passed_on(code: int) -> None:
    assert command_line.run(lambda _: code, []) == code
