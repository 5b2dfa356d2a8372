"""What training refuses to start on, or with: each thing is one line that names it."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from shapes import make_cutouts, make_data

from gconet.runtime.command_line import run
from gconet.runtime.errors import PhotoError, UsageError
from gconet.train.config import TrainingConfig
from gconet.train.cutouts import Cutouts
from gconet.train.data_check import checked_groups
from gconet.train.groups import DataError, LabelledGroup, Sample, hold_out, leave_out_copies, read_groups
from gconet.train.observer import Observer
from gconet.train.train_command import main, run_training


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three groups of four."""
    return make_data(tmp_path_factory.mktemp("shapes"))


def _remove_mask(root: Path) -> str:
    (root / "gts/toys/disc/1.png").unlink()
    return "1.jpg has no mask"


def _shrink_mask(root: Path) -> str:
    Image.new("L", (5, 5)).save(root / "gts/toys/disc/1.png")
    return "1.png is 5×5, its photo 96×80"


def _break_photo(root: Path) -> str:
    (root / "images/toys/disc/1.jpg").write_text("not a photo")
    return "1.jpg is not a photo"


def _break_mask(root: Path) -> str:
    (root / "gts/toys/disc/1.png").write_text("not a mask")
    return "the mask " + str(root / "gts/toys/disc/1.png") + " is not a photo"


def _huge_mask(root: Path) -> str:
    Image.new("1", (20000, 20000)).save(root / "gts/toys/disc/1.png")
    return "1.png has too many pixels"


def _mask_of_ones(root: Path) -> str:
    path = root / "gts/toys/disc/1.png"
    with Image.open(path) as mask:
        mask.point(lambda grey: grey // 255).save(path)
    return "1.png has no grey value above 1: 255 is the shared object"


def _empty_group(root: Path) -> str:
    (root / "images/toys/void").mkdir()
    return "void is empty"


def _small_group(root: Path) -> str:
    (root / "images/toys/disc/1.jpg").unlink()
    return "toys/disc has 3 photos to train on, 4 are asked for"


def _break_cutout(root: Path) -> str:
    (make_cutouts(root / "cutouts") / "disc.png").write_text("not a cut-out")
    return "disc.png cannot be read"


def _huge_cutout(root: Path) -> str:
    Image.new("1", (20000, 20000)).save(make_cutouts(root / "cutouts") / "disc.PNG")
    return "disc.PNG cannot be read"


def _single_cutout(root: Path) -> str:
    (make_cutouts(root / "cutouts") / "disc.png").unlink()
    return "1 cut-outs"


def _no_masks_at_all(root: Path) -> str:
    (root / "gts").rename(root / "masks")
    return "has no folder gts/"


@pytest.mark.parametrize(
    "spoil",
    [
        _remove_mask, _shrink_mask, _break_photo, _break_mask, _huge_mask, _mask_of_ones, _empty_group, _small_group,
        _no_masks_at_all, _break_cutout, _huge_cutout, _single_cutout,
    ],
)  # fmt: skip
def test_bad_data_is_named_before_training_starts(
    spoil: Callable[[Path], str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = make_data(tmp_path / "data")
    expected = spoil(root)
    arguments = ["--data", str(root), "--out", str(tmp_path / "run"), "--group-size", "4"]
    if (root / "cutouts").is_dir():
        arguments += ["--cutouts", str(root / "cutouts"), "--synthetic", "0.5"]
    assert run(main, arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert expected in line
    assert not (tmp_path / "run").exists()


def test_a_cutout_that_vanished_is_named(tmp_path: Path) -> None:
    """While a run goes on, which would else be a fault of our own."""
    cutouts = Cutouts.below(make_cutouts(tmp_path))
    cutouts.pictures[1].unlink()
    assert cutouts.read(0).mode == "RGBA"
    with pytest.raises(PhotoError, match=r"^the cut-out .*triangle\.png cannot be read"):
        cutouts.read(1)


def test_every_problem_is_a_line_of_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = make_data(tmp_path / "data")
    expected = [_break_photo(root), _small_group(make_data(tmp_path / "other"))]
    (root / "images/toys/square/0.jpg").unlink()
    assert run(main, ["--data", str(root), "--out", str(tmp_path / "run"), "--group-size", "4"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert any(expected[0] in line for line in lines)


def test_held_out_photos_leave_the_training_groups_by_content(tmp_path: Path) -> None:
    root = make_data(tmp_path)
    copy = root / "images/toys/square/copy.jpg"
    copy.write_bytes((root / "images/toys/disc/0.jpg").read_bytes())
    (root / "gts/toys/square/copy.png").write_bytes((root / "gts/toys/square/0.png").read_bytes())
    config = TrainingConfig(root, tmp_path / "run", group_size=4, hold_out=("toys/disc",))
    training, held = checked_groups(config)
    assert [group.name for group in held] == ["toys/disc"]
    assert copy not in [sample.photo for group in training for sample in group.samples]
    assert [len(group.samples) for group in training] == [4, 4]
    with pytest.raises(DataError, match="there is no group toys/star"):
        hold_out(read_groups(root), ["toys/star"])
    with pytest.raises(DataError, match="at least two"):
        checked_groups(dataclasses.replace(config, hold_out=("toys/disc", "toys/square")))
    for photo in (root / "images/toys/square").iterdir():
        photo.write_bytes(copy.read_bytes())
    with pytest.raises(DataError, match=r"^all photos of the group toys/square are in held-out groups too: leave it"):
        checked_groups(config)
    copy.unlink()
    with pytest.raises(DataError, match=r"copy\.jpg cannot be read"):
        leave_out_copies([LabelledGroup("copy", (Sample(copy, copy),))], held)


def test_held_out_groups_may_be_small_but_not_damaged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = make_data(tmp_path / "data")
    _small_group(root)
    config = TrainingConfig(root, tmp_path / "run", group_size=4, hold_out=("toys/disc",))
    training, (held,) = checked_groups(config)
    assert (len(training), len(held.samples)) == (2, 3)
    (root / "images/toys/disc/0.jpg").write_text("not a photo")
    arguments = ["--data", str(root), "--out", str(tmp_path / "run"), "--group-size", "4", "--hold-out", "toys/disc"]
    assert run(main, arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "0.jpg is not a photo" in line


@pytest.mark.parametrize(
    "argument",
    ["--sizes 100", "--sizes 32 16", "--seed -1", "--seed 18446744073709551616", "--scale 1.2 0.8", "--scale 0 1",
     "--scale nan 1", "--learning-rate 0", "--learning-rate inf", "--encoder-rate -1", "--encoder-rate nan",
     "--workers -1", "--synthetic 1.5", "--distractor -0.1", "--rotation 181", "--rotation nan", "--colour 1",
     "--instances 1 --synthetic 0.3 --cutouts .", "--trainable-encoder conv5_3",
     "--cutouts . --instances 0.5", "--attention-loss 1 --no-gam", "--levels 2 4 1", "--levels 1 2",
     "--attention-loss -0.5", "--crossed-loss inf",
     "--steps 1 --sizes 32 48", "--fp16 --bf16", "--sizes big",
     "--device cuda:99", "--device meta", "--device tpu", "--small-groups drop"],
)  # fmt: skip
def test_arguments_that_make_no_sense_are_one_line(
    argument: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--data", str(data), "--out", str(tmp_path / "run"), "--group-size", "4", *argument.split()]
    assert _exit_code(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert argument.split()[0] in line
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("place", ["file", "file/run"])
def test_a_folder_that_cannot_be_made_is_one_line(
    place: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("in the way")
    assert _exit_code(["--data", str(data), "--out", str(tmp_path / place), "--group-size", "4"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "file is no folder; choose another folder" in line


def test_a_read_only_folder_is_one_line(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = TrainingConfig(data, tmp_path / "run", group_size=4)
    with monkeypatch.context() as patch:
        patch.setattr(os, "access", lambda *_: False)
        with pytest.raises(UsageError, match="may not be written in"):
            run_training(config)
    config.out.write_text("came in between")
    with pytest.raises(UsageError, match="cannot be written"):
        Observer(config.out, 0, 1)


def _exit_code(arguments: list[str]) -> int:
    """Of the command, whether its parser or its `main` finds the error."""
    try:
        return run(main, arguments)
    except SystemExit as error:
        return int(error.code or 0)
