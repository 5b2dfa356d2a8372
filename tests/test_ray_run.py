"""`gconet detect --ray`: the same files as without, whatever dies or is interrupted on the way."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import gconet.runtime as gr
from gconet.runtime import cli, command_line
from gconet.runtime.preprocess import Photo
from gconet.runtime.run_folder import PREFIX

needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs ray: pip install 'ray[data]'")

SOURCE = Path(__file__).resolve().parents[1] / "src"
SIZES = {"one": 1, "many": 40, "deep/three": 3, "deep/er/two": 2, "été": 5, "pair": 2}
PHOTOS = sum(SIZES.values())
PATIENCE = 120  # seconds, for a machine that is busy with other things


@pytest.fixture(scope="module")
def bundle(tiny_bundle: Callable[[str, str], Path]) -> Path:
    return tiny_bundle("onnxruntime", "fp32")


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory, example_photos: list[Photo]) -> Path:
    """Groups of very different sizes; not to be altered."""
    root = tmp_path_factory.mktemp("tree")
    for number, (folder, count) in enumerate(SIZES.items()):
        (root / folder).mkdir(parents=True)
        for index in range(count):
            photo = example_photos[(number + index) % len(example_photos)]
            Image.fromarray(photo[:: 5 + index % 3, ::6]).save(root / folder / f"{index}.png")
    return root


@pytest.fixture(scope="module")
def expected(tree: Path, bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of the plain command."""
    out = tmp_path_factory.mktemp("plain") / "maps"
    assert detect(tree, bundle, out) == 0
    return content(out)


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """One Ray of two cores for all tests, which the command finds connected, uses and leaves."""
    from gconet.runtime.ray_cluster import connected

    with pytest.MonkeyPatch.context() as environment:
        environment.delenv("RAY_ADDRESS", raising=False)
        environment.setenv("PYTHONPATH", str(SOURCE))  # for the workers
        with connected(None, cores=2) as ray:
            yield ray.get_runtime_context().gcs_address


def command(tree: Path, bundle: Path, out: Path, *options: str | Path) -> list[str]:
    return [str(word) for word in ("detect", tree, "--bundle", bundle, "--out", out, "--threads", "1", *options)]


def detect(tree: Path, bundle: Path, out: Path, *options: str | Path) -> int:
    return command_line.run(cli.main, command(tree, bundle, out, *options))


def content(out: Path) -> dict[str, bytes]:
    """Every file below a folder, hidden ones too, but for what describes the run."""
    files = {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()}
    files.pop("run.json", None)
    return files


def run_json(out: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((out / "run.json").read_text("utf-8"))
    return document


def statuses(out: Path) -> dict[str, str]:
    return {group["folder"]: group["status"] for group in run_json(out)["groups"]}


@dataclass
class Halted:
    """A worker that was halted, and is not killed yet, with maps of a group written that have no names yet."""

    process: int
    group: str


def halt_a_worker(out: Path) -> Halted:
    """Halt the first worker that is caught in the middle of writing a group."""
    patience = time.monotonic() + PATIENCE
    while time.monotonic() < patience:
        for partial in out.rglob("*.partial-*"):
            process = int(partial.name.rpartition("-")[2].partition(".")[0])
            if partial.name.startswith(".run.json") or process == os.getpid():
                continue
            os.kill(process, signal.SIGSTOP)
            time.sleep(0.1)  # what it was at when the signal came is over
            if partial.exists():
                return Halted(process, partial.parent.relative_to(out).as_posix())
            os.kill(process, signal.SIGCONT)
        time.sleep(0.001)
    raise AssertionError("no worker was seen writing")


@needs_ray
@pytest.mark.slow
def test_two_workers_write_the_plain_commands_files(
    address: str, tree: Path, bundle: Path, expected: dict[str, bytes], tmp_path: Path, capfd: Any
) -> None:
    out = tmp_path / "maps"
    assert detect(tree, bundle, out, "--ray", address, "--workers", "2") == 0
    captured = capfd.readouterr()
    assert captured.out == f"{PHOTOS} maps of {len(SIZES)} groups in {out}\n"
    assert "gconet:" not in captured.err
    assert content(out) == expected

    document = run_json(out)
    assert document["status"] == "complete"
    assert (document["workers"], document["threads"], document["gpu"]) == (2, 1, False)
    assert document["counts"] == {"done": len(SIZES)}
    assert {group["folder"]: group["photos"] for group in document["groups"]} == SIZES
    assert all(group["seconds"] > 0 and group["worker"] for group in document["groups"])
    assert document["bundle"]["target"] == "onnxruntime"


@needs_ray
@pytest.mark.slow
def test_a_worker_killed_in_the_middle_loses_and_doubles_nothing(
    address: str, tree: Path, bundle: Path, expected: dict[str, bytes], tmp_path: Path, capfd: Any
) -> None:
    out, killed = tmp_path / "maps", list[Halted]()

    def kill() -> None:
        halted = halt_a_worker(out)
        os.kill(halted.process, signal.SIGKILL)
        killed.append(halted)

    killer = threading.Thread(target=kill)
    killer.start()
    code = detect(tree, bundle, out, "--ray", address)
    killer.join()
    assert (code, capfd.readouterr().out) == (0, f"{PHOTOS} maps of {len(SIZES)} groups in {out}\n")
    assert content(out) == expected
    (group,) = (group for group in run_json(out)["groups"] if group["folder"] == killed[0].group)
    assert group["status"] == "done"
    assert not group["worker"].endswith(f":{killed[0].process}")


@needs_ray
@pytest.mark.slow
def test_ctrl_c_leaves_whole_groups_and_a_rerun_the_same_tree(
    address: str, tree: Path, bundle: Path, expected: dict[str, bytes], tmp_path: Path
) -> None:
    out = tmp_path / "maps"
    code = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
    code += "from gconet.runtime import cli, command_line; sys.exit(command_line.run(cli.main, sys.argv[1:]))"
    arguments = [sys.executable, "-c", code, *command(tree, bundle, out, "--ray", address)]
    with subprocess.Popen(
        arguments,
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        halted = halt_a_worker(out)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all of the command's processes
        patience = time.monotonic() + PATIENCE
        while list(out.glob(f"{PREFIX}*")) and time.monotonic() < patience:
            time.sleep(0.01)
        os.kill(halted.process, signal.SIGCONT)
        output, errors = process.communicate(timeout=PATIENCE)
    assert (process.returncode, output) == (130, "")
    assert errors.splitlines()[-1] == "gconet: interrupted"
    found = content(out)
    assert found.items() <= expected.items()
    assert not any(name.startswith(halted.group) for name in found)
    assert run_json(out)["status"] == "interrupted"
    assert statuses(out)[halted.group] == "stopped"
    for folder, count in SIZES.items():
        assert sum(str(Path(name).parent) == folder for name in found) in (0, count)

    assert detect(tree, bundle, out, "--ray", "--skip-existing") == 0
    assert content(out) == expected
    assert statuses(out)[halted.group] == "done"


@needs_ray
@pytest.mark.slow
def test_a_bad_photo_fails_its_group_only_and_a_rerun_goes_on(
    address: str, tree: Path, bundle: Path, expected: dict[str, bytes], tmp_path: Path, capfd: Any
) -> None:
    copy, out = Path(shutil.copytree(tree, tmp_path / "photos")), tmp_path / "maps"
    bad = copy / "pair/1.png"
    good = bad.read_bytes()
    bad.write_bytes(good[:100])
    capfd.readouterr()
    assert detect(copy, bundle, out, "--ray", address) == 2
    captured = capfd.readouterr()
    assert captured.out == ""
    lines = [line for line in captured.err.splitlines() if line.startswith("gconet")]
    assert len(lines) == 2
    assert lines[0].startswith(f"gconet: group pair: {bad} cannot be read")
    assert lines[1].startswith(f"gconet: 1 of {len(SIZES)} groups failed, named above; {len(SIZES) - 1} done")
    assert content(out) == {name: data for name, data in expected.items() if not name.startswith("pair/")}
    assert run_json(out)["status"] == "incomplete"

    bad.write_bytes(good)
    assert detect(copy, bundle, out, "--ray", address, "--skip-existing") == 0
    assert capfd.readouterr().out.startswith("2 maps of 1 group in ")
    assert content(out) == expected
    assert statuses(out) == {**dict.fromkeys(SIZES, "skipped"), "pair": "done"}

    assert detect(copy, bundle, out, "--ray", address, "--skip-existing") == 0
    assert capfd.readouterr().out.startswith("0 maps of 0 groups in ")


@needs_ray
@pytest.mark.slow
def test_a_consensus_is_found_as_by_the_plain_command(address: str, tree: Path, bundle: Path, tmp_path: Path) -> None:
    kept = tmp_path / "kept.safetensors"
    detector = gr.load(bundle, threads=1)
    gr.save_consensus(kept, detector.bundle, detector.consensus(sorted((tree / "été").iterdir())))
    for out, options in (("plain", ()), ("ray", ("--ray", address))):
        assert detect(tree / "deep", bundle, tmp_path / out, "--consensus", kept, *options) == 0
    assert content(tmp_path / "ray") == content(tmp_path / "plain")


@needs_ray
@pytest.mark.slow
def test_more_workers_than_there_are_cores_is_one_line(
    address: str, tree: Path, bundle: Path, tmp_path: Path, capfd: Any
) -> None:
    capfd.readouterr()
    assert detect(tree / "deep", bundle, tmp_path / "maps", "--ray", address, "--workers", "3") == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("gconet: no room for 3 workers of 1 threads each: Ray has 2 cores on 1 machines; ")
    assert line.endswith("pass --workers 2")
    assert content(tmp_path / "maps") == {}


def test_an_unreachable_address_is_one_line(tree: Path, bundle: Path, tmp_path: Path, capfd: Any) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # and does not listen
        where = f"127.0.0.1:{nobody.getsockname()[1]}"
        for address in (where, f"ray://{where}"):
            capfd.readouterr()
            assert detect(tree / "deep", bundle, tmp_path / "maps", "--ray", address) == 2
            (line,) = capfd.readouterr().err.splitlines()
            assert line.startswith(f"gconet: no Ray at {address} (Connection refused): ")
    assert not (tmp_path / "maps").exists()


@needs_ray
def test_a_ray_that_does_not_start_is_one_line(
    tree: Path, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    import ray

    def fail(*_: object, **__: object) -> None:
        raise Exception("The current node timed out during startup.")  # as Ray raises it

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", fail)
    capfd.readouterr()
    assert detect(tree / "deep", bundle, tmp_path / "maps", "--ray", "local") == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("gconet: Ray does not start on this machine (The current node timed out during startup.): ")


def test_missing_ray_is_one_line_with_the_install(
    tree: Path, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    capfd.readouterr()
    assert detect(tree / "deep", bundle, tmp_path / "maps", "--ray") == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert line == "gconet: --ray needs ray: pip install 'gconet-deploy[ray]'"
    assert not (tmp_path / "maps").exists()


@pytest.mark.parametrize(
    ("options", "mention"),
    [
        (["--workers", "2"], "--workers is for --ray"),
        (["--ray", "photos/"], "name photos before --ray"),
        (["--ray", "--device", "cuda:1"], "pass --device cuda"),
    ],
    ids=lambda value: "" if isinstance(value, str) else " ".join(value),
)
def test_a_mistake_is_one_line(
    options: list[str], mention: str, tree: Path, bundle: Path, tmp_path: Path, capfd: Any
) -> None:
    capfd.readouterr()
    try:
        code = detect(tree / "deep", bundle, tmp_path / "maps", *options)
    except SystemExit as leaving:
        code = int(leaving.code or 0)
    (line,) = capfd.readouterr().err.splitlines()
    assert code == 2
    assert mention in line
