"""The soak finds wrong answers and growth where there are some, and none where there are none."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import TINY_SIZE

import gconet.runtime as gr
from gconet.bench import soak
from gconet.bench.memory_growth import growth
from gconet.bench.photo_groups import find_photos
from gconet.runtime.errors import PhotoError, UsageError

REQUEST = soak.SoakRequest(minutes=0.02, warm_up_minutes=0.004, threads=4, tolerance=0.0, every=0.1, seed=1)


@pytest.mark.parametrize("target", ["onnxruntime", "openvino"])
def test_threads_get_the_answers_of_one(target: str, tiny_bundle: Callable[[str, str], Path], tmp_path: Path) -> None:
    report = tmp_path / "soak.json"
    words = ["--bundle", str(tiny_bundle(target, "fp32")), "--minutes", "0.05", "--every", "0.1", "--json", str(report)]
    soak.main([*words, "--engine-threads", "1", "--limit", "1000"])  # growth says nothing in three seconds
    document = json.loads(report.read_bytes())
    assert document["wrong"] == 0
    assert document["equal_to_the_bit"] == document["answers"] == sum(document["asked"].values()) > 8
    assert len(document["rss_mb"]) > 5
    assert document["bundle"]["size"] == TINY_SIZE
    assert document["bundle"]["manifest_sha256"]


@pytest.fixture
def questions(tiny_bundle: Callable[[str, str], Path]) -> list[soak.Question]:
    detector = gr.load(tiny_bundle("onnxruntime", "fp32"), threads=1)
    return soak.make_questions(detector, find_photos(None), 1)


def test_every_kind_of_question_is_there(questions: list[soak.Question]) -> None:
    kinds = {(question.kind, question.size) for question in questions}
    assert kinds == {("detect", 1), ("detect", 2), ("detect", 3), ("consensus", 3), ("segment", 1)}  # bundle of up to 4


@pytest.mark.parametrize("change", [1e-6, np.nan])
def test_a_wrong_answer_is_counted(change: float, questions: list[soak.Question]) -> None:
    wrong = dataclasses.replace(questions[0], expected=[array + change for array in questions[0].expected])
    tally, _ = soak.soak([wrong], REQUEST)
    assert tally.wrong == tally.total > 0
    assert tally.equal == 0


def test_an_answer_of_another_shape_is_infinitely_wrong() -> None:
    assert soak.largest_difference([np.zeros((2, 3), np.float32)], [np.zeros((3, 2), np.float32)]) == float("inf")


def test_a_nan_in_any_photo_is_wrong() -> None:
    right = [np.zeros((2, 2), np.float32)] * 2
    assert np.isnan(soak.largest_difference([right[0], np.full((2, 2), np.nan, np.float32)], right))


def test_an_error_in_a_thread_ends_the_soak(questions: list[soak.Question]) -> None:
    def fail() -> list[np.ndarray]:
        raise PhotoError("no photo at a.jpg")

    with pytest.raises(PhotoError, match=r"a\.jpg"):
        soak.soak([dataclasses.replace(questions[0], ask=fail)], REQUEST)


def test_growth_is_that_of_the_last_tenth_over_the_first() -> None:
    steady = growth([100.0, 101.0] * 50, 1.0)
    assert abs(steady["growth_percent"]) <= 1
    rising = growth([100 + index / 10 for index in range(100)], 1.0)
    assert rising["growth_percent"] == pytest.approx(9, abs=0.1)
    assert rising["slope_mb_per_hour"] == pytest.approx(360, rel=0.01)
    with pytest.raises(UsageError, match="too short"):
        growth([1.0], 1.0)


def test_a_warm_up_longer_than_the_soak_is_refused(tiny_bundle: Callable[[str, str], Path]) -> None:
    with pytest.raises(UsageError, match="--warm-up-minutes"):
        soak.main(["--bundle", str(tiny_bundle("onnxruntime", "fp32")), "--minutes", "1", "--warm-up-minutes", "2"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--minutes", "1", "--every", "60"], "too short"),
        (["--tolerance", "nan"], "--tolerance"),
        (["--tolerance", "-1"], "--tolerance"),
        (["--json", "."], "it is a folder"),
    ],
)
def test_what_cannot_end_well_is_refused_before_it_begins(
    words: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(soak, "load", None)  # not even a bundle is opened
    with pytest.raises(UsageError, match=message):
        soak.main(words)
