"""The variance of consensus vectors, against figures worked out by hand."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from gconet.runtime.group_vectors import cosine, measure_spread, spread_table, subgroup_vectors, unit
from gconet.runtime.preprocess import FloatArray

EAST, NORTH, WEST = ([1.0, 0.0], [0.0, 1.0], [-1.0, 0.0])


def vectors(*rows: list[float]) -> FloatArray:
    return np.array(rows, np.float32)


def test_a_group_that_agrees_has_no_variance_whatever_the_lengths() -> None:
    spread = measure_spread([("same", vectors([3, 4], [6, 8], [0.3, 0.4]))])
    assert spread.groups[0].d == pytest.approx(0, abs=1e-12)
    assert spread.d == pytest.approx(0, abs=1e-12)
    assert (spread.between, spread.ratio) == (None, None)


def test_opposite_vectors_have_variance_one_and_a_right_angle_half() -> None:
    spread = measure_spread([("opposite", vectors(EAST, WEST)), ("right", vectors(EAST, NORTH))])
    assert [group.d for group in spread.groups] == pytest.approx([1.0, 0.5])
    assert spread.d == pytest.approx(0.75)
    # The means are (0, 0) and (1/2, 1/2), the mean of the means (1/4, 1/4): each is at a distance of √(1/8) from it.
    assert spread.between == pytest.approx(1 / 8)
    assert spread.ratio == pytest.approx(6.0)


def test_every_group_counts_once_and_those_of_one_vector_not_at_all() -> None:
    many, single = vectors(*[EAST, NORTH] * 10), vectors(WEST)
    spread = measure_spread([("many", many), ("two", vectors(NORTH, NORTH)), ("one", single)])
    assert [group.subgroups for group in spread.groups] == [20, 2, 1]
    assert spread.groups[2].d is None
    assert spread.d == pytest.approx(0.25)
    assert spread.between == pytest.approx(1 / 8)  # of (1/2, 1/2) and (0, 1) alone


def test_vectors_of_zeros_are_no_division_by_zero() -> None:
    spread = measure_spread([("dark", vectors([0, 0], [0, 0])), ("half", vectors([0, 0], EAST))])
    assert [group.d for group in spread.groups] == pytest.approx([0.0, 0.25])
    assert json.loads(json.dumps(spread.document(), allow_nan=False))["groups"][0] == {
        "name": "dark",
        "subgroups": 2,
        "d": 0.0,
    }
    assert measure_spread([("dark", vectors([0, 0], [0, 0])), ("too", vectors([0, 0], [0, 0]))]).ratio is None


def test_no_group_of_two_has_no_variance() -> None:
    assert measure_spread([("one", vectors(EAST))]).document() == {
        "d": None,
        "between": None,
        "ratio": None,
        "groups": [{"name": "one", "subgroups": 1, "d": None}],
    }


def test_a_tight_cluster_has_the_variance_of_its_noise(rng: np.random.Generator) -> None:
    noise = 0.05
    centre = np.zeros(64)
    centre[0] = 1
    points = (centre + rng.normal(0, noise, (4000, 64))).astype(np.float32)
    spread = measure_spread([("cluster", points)])
    # Unit length takes the direction along the centre away: 63 of noise² each, over a squared length of 1 + 64 noise².
    assert spread.d == pytest.approx(63 * noise**2 / (1 + 64 * noise**2), rel=0.03)


def test_the_cosine_of_vectors() -> None:
    assert cosine(np.array([2.0, 0], np.float32), np.array([1.0, 1], np.float32)) == pytest.approx(math.sqrt(0.5))
    assert cosine(np.array(EAST, np.float32), np.array(WEST, np.float32)) == pytest.approx(-1)
    assert cosine(np.zeros(2, np.float32), np.array(EAST, np.float32)) == 0
    assert np.linalg.norm(unit(vectors([3, 4], [0, 0])), axis=1).tolist() == [1, 0]


class EchoDetector:
    """Its consensus of photos is how many they are and the first one's number."""

    def consensus(self, photos: list[str]) -> FloatArray:
        return np.array([len(photos), int(photos[0])], np.float32)


def test_a_group_is_cut_into_runs_of_photos_the_last_perhaps_shorter() -> None:
    photos, done = [str(number) for number in range(5)], list[int]()
    detector = EchoDetector()
    found = subgroup_vectors(detector, photos, 2, done.append)  # type: ignore[arg-type]
    assert found.tolist() == [[2, 0], [2, 2], [1, 4]]
    assert done == [2, 2, 1]
    assert len(subgroup_vectors(detector, photos, 1)) == 5  # type: ignore[arg-type]
    assert len(subgroup_vectors(detector, photos, 9)) == 1  # type: ignore[arg-type]


def test_the_table_has_a_column_for_each_bundle_and_a_row_for_each_group() -> None:
    ours = measure_spread([("cats", vectors(EAST, NORTH)), ("a long name", vectors(EAST))])
    theirs = measure_spread([("cats", vectors(EAST, WEST)), ("a long name", vectors(NORTH))])
    lines = spread_table({"ours.gconet": ours, "theirs": theirs}).splitlines()
    assert lines[0].split() == ["group", "sub-groups", "ours.gconet", "theirs"]
    assert lines[1].split() == ["cats", "2", "0.5000", "1.0000"]
    assert lines[2].split() == ["a", "long", "name", "1", "-", "-"]
    assert lines[3].split()[-2:] == ["0.5000", "1.0000"]
    assert lines[5].split() == ["d", "/", "between", "-", "-"]
    assert len({len(line) for line in lines}) == 1  # columns line up
