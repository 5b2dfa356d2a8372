"""What runs of many workers are made of, without Ray: run folders, workers, shares of cores."""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from PIL import Image

from gconet.runtime.bundle import describe_file
from gconet.runtime.errors import GconetError, TargetError, UsageError
from gconet.runtime.manifest import MANIFEST_NAME
from gconet.runtime.photos import Group
from gconet.runtime.preprocess import Photo
from gconet.runtime.ray_cluster import ray_address, share_out
from gconet.runtime.ray_worker import GroupWorker, Job
from gconet.runtime.run_folder import ENDED, MAX_ATTEMPTS, PREFIX, RunFolder, Stopped
from gconet.runtime.run_manifest import RunManifest


@pytest.fixture
def photos(tmp_path: Path, example_photos: list[Photo]) -> list[Path]:
    paths = [tmp_path / f"photos/{index}.png" for index in range(3)]
    paths[0].parent.mkdir()
    for path, photo in zip(paths, example_photos, strict=False):
        Image.fromarray(photo[::6, ::5]).save(path)
    return paths


@pytest.fixture
def bundle(tiny_bundle: Callable[[str, str], Path]) -> Path:
    return tiny_bundle("onnxruntime", "fp32")


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def job(bundle: Path, run: Path, photos: list[Path], digest: str | None = None) -> Job:
    digest = digest or describe_file(bundle / MANIFEST_NAME).sha256
    return Job(str(bundle), digest, "cpu", 1, str(run), str(photos[0]))


def row(photos: list[Path], out: Path) -> dict[str, object]:
    return {"index": 7, "photos": list(map(str, photos)), "maps": [str(out / path.name) for path in photos]}


def test_a_run_ends_with_its_block_and_with_the_next_run(tmp_path: Path) -> None:
    out = tmp_path / "new/out"
    with RunFolder.open(out) as first:
        assert list(first.watched("ab")) == ["a", "b"]
        with RunFolder.open(out) as second:
            assert second.going_on()
            for touch in (first.check, lambda: next(first.watched("a"))):
                with pytest.raises(Stopped):
                    touch()
            with pytest.raises(Stopped), first.attempt(1):
                pass
        assert not second.going_on()
    assert names(out) == set()


def test_what_a_killed_run_left_of_its_folder_is_removed_by_the_next(tmp_path: Path) -> None:
    for name in (f"{PREFIX}1", f"{ENDED}{PREFIX}2"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "0.1").touch()
    with RunFolder.open(tmp_path) as run:
        assert list(tmp_path.iterdir()) == [run.path]
    assert not list(tmp_path.iterdir())


def test_a_group_that_kills_its_workers_is_given_up(tmp_path: Path) -> None:
    with RunFolder.open(tmp_path) as run:
        for _ in range(MAX_ATTEMPTS + 1):  # ended in order, so none is counted
            with run.attempt(1):
                pass
        for number in range(MAX_ATTEMPTS):
            (run.path / f"1.{number + 1}").touch()  # as those leave them that are killed
        with pytest.raises(TargetError, match="3 workers died of it"), run.attempt(1):
            pass
        with run.attempt(2):
            pass


def test_a_worker_answers_with_what_became_of_the_group(bundle: Path, photos: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "maps"
    with RunFolder.open(tmp_path / "maps") as run:
        worker = GroupWorker(job(bundle, run.path, photos))
        answer = worker(row(photos, out))
        assert (answer["index"], answer["status"], answer["message"]) == (7, "done", "")
        written = {path.name: path.read_bytes() for path in photos[0].parent.iterdir()}
        assert names(out) == {*written, run.path.name}

        photos[2].write_bytes(b"no photo")
        answer = worker(row(photos, out))
        assert answer["status"] == "failed"
        assert str(photos[2]) in answer["message"]

        shutil.rmtree(out / run.path.name)
        assert worker(row(photos[:2], out))["status"] == "stopped"


def test_a_worker_without_the_shared_storage_says_which(bundle: Path, photos: list[Path], tmp_path: Path) -> None:
    with RunFolder.open(tmp_path / "maps") as run:
        missing = tmp_path / "missing"
        cases: Mapping[str, Job] = {
            f"does not see {missing}: put --out on storage": job(bundle, missing / "run", photos),
            f"does not see {missing}: put the photos on storage": job(bundle, run.path, [missing]),
            f"does not see {missing}: put the bundle on storage": job(missing, run.path, photos, "0" * 64),
            f"has another bundle at {bundle}": job(bundle, run.path, photos, "0" * 64),
        }
        for mention, task in cases.items():
            answer = GroupWorker(task)(row(photos, tmp_path / "maps"))
            assert answer["status"] == "unfit"
            assert mention in answer["message"]


@pytest.mark.parametrize(
    ("cores", "gpus", "workers", "threads", "expected"),
    [
        ([16], [0], None, None, (4, 4)),
        ([2], [0], None, None, (1, 2)),
        ([2], [0], 2, None, (2, 1)),
        ([2], [0], None, 1, (2, 1)),
        ([8, 6, 0], [0, 0, 0], None, 4, (3, 4)),  # no worker lies across two machines
        ([8, 8], [0, 0], 1, None, (1, 8)),
        ([16], [2], None, None, (2, 1)),
        ([16, 2], [2, 1], None, 4, (2, 4)),
    ],
)
def test_cores_and_gpus_are_shared_out(
    cores: list[int], gpus: list[int], workers: int | None, threads: int | None, expected: tuple[int, int]
) -> None:
    machines = [{"CPU": float(c), "GPU": float(g)} for c, g in zip(cores, gpus, strict=True)]
    assert share_out(machines, any(gpus), workers, threads) == expected


@pytest.mark.parametrize(
    ("gpu", "workers", "threads", "mention"),
    [(False, 3, 1, "--workers 2"), (False, None, 3, "--threads 1"), (True, None, None, "2 cores and 0 GPUs")],
)
def test_no_room_is_an_error_with_what_would_fit(
    gpu: bool, workers: int | None, threads: int | None, mention: str
) -> None:
    with pytest.raises(UsageError, match=mention):
        share_out([{"CPU": 2.0}], gpu, workers, threads)


@pytest.mark.parametrize("text", ["auto", "local", "head:6379", "192.0.2.7:1", "[::1]:6379", "ray://head:10001"])
def test_addresses_of_ray(text: str) -> None:
    assert ray_address(text) == text


@pytest.mark.parametrize("text", ["photos", "photos/", "http://head:1", "head:", ":1", "a b:1"])
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        ray_address(text)


def test_a_group_that_is_called_like_the_runs_description_is_refused(tmp_path: Path) -> None:
    groups = [Group(Path("run.json/cats"), (Path("a.jpg"),))]
    with pytest.raises(GconetError, match="rename the group"):
        RunManifest(tmp_path, {}, groups, groups)
