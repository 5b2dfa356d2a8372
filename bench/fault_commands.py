"""Commands on a tiny network; what they do on a disk that is full or read-only."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gconet.bench.fault_rows import Fault
from gconet.bench.photo_groups import EXAMPLES
from gconet.runtime.command_line import EXIT_BAD_INPUT, EXIT_DONE
from gconet.runtime.errors import TargetError

SIZE, MAX_GROUP = 64, 2  # of a network so small that commands are over soon
PR_CAPBSET_DROP, CAP_DAC_OVERRIDE = 24, 1  # linux/prctl.h, linux/capability.h


@dataclass(frozen=True)
class Outcome:
    """How a command ended, what it said, and how long it took in seconds; `killed` if it was not over by then."""

    code: int
    error: str
    seconds: float
    killed: bool = False


def gconet(*words: object) -> list[str]:
    """The command line of a subcommand."""
    return [sys.executable, "-m", "gconet.runtime.cli", *map(str, words)]


def run_command(
    words: Sequence[str], kill_after: float | None = None, file_bytes: int | None = None, obedient: bool = False
) -> Outcome:
    """Run a command.

    Parameters
    ----------
    kill_after : seconds after which it gets SIGKILL.
    file_bytes : the largest file that it can write.
    obedient : the permissions of files bind it, even if this is run by root.
    """

    import resource  # only here: Windows lacks it, and skips what needs it

    def limit() -> None:
        if file_bytes is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, file_bytes))
        if obedient and os.geteuid() == 0:
            ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, CAP_DAC_OVERRIDE, 0, 0, 0)

    start = time.monotonic()
    with subprocess.Popen(
        words,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        preexec_fn=limit,
    ) as process:
        try:
            _, error = process.communicate(timeout=kill_after)
            killed = False
        except subprocess.TimeoutExpired:
            process.kill()
            _, error = process.communicate()
            killed = True
    return Outcome(process.returncode, error, time.monotonic() - start, killed)


def environment() -> Mapping[str, str]:
    """That of this process, for one that finds the same modules and leaves no files of its own."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONDONTWRITEBYTECODE": "1"}


def write_tiny_checkpoint(path: Path) -> None:
    """A random network that is exported, built and measured in seconds."""
    import dataclasses

    from gconet.runtime.preprocess import Preprocessing
    from gconet.train.checkpoint import random_checkpoint, save_checkpoint
    from gconet.train.model import Architecture

    tiny = random_checkpoint(1, Architecture(encoder_channels=(4, 6, 8, 12, 16), decoder_channels=4, classes=5))
    info = dataclasses.replace(tiny.info, preprocessing=Preprocessing(SIZE))
    save_checkpoint(dataclasses.replace(tiny, info=info), path)


def build_arguments(checkpoint: Path, out: Path) -> list[str]:
    """What `gconet build` is told, to build a bundle of a tiny network."""
    options = ("--target", "onnxruntime", "--precision", "fp32", "--max-group", str(MAX_GROUP))
    return ["--checkpoint", str(checkpoint), *options, "--out", str(out)]


def build_words(checkpoint: Path, out: Path) -> list[str]:
    """The whole command."""
    return gconet("build", *build_arguments(checkpoint, out))


def make_groups(folder: Path, groups: int, photos: int) -> None:
    """Groups of example photos below a folder."""
    examples = sorted(EXAMPLES.glob("*/*.jpg"))
    for number in range(groups):
        group = folder / f"{number:02}"
        group.mkdir(parents=True)
        for index in range(photos):
            photo = examples[(number * photos + index) % len(examples)]
            shutil.copyfile(photo, group / f"{index}.jpg")


def content(folder: Path) -> dict[str, bytes]:
    """Every file below a folder by its name relative to it."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def fill_disk(bundle: Path, checkpoint: Path, folder: Path, limits: Sequence[int]) -> Fault:
    """Commands that write, under limits on the size of a file, as on a disk with so little room."""
    fault = Fault("no room on the disk: `RLIMIT_FSIZE` under detect, consensus, build and `--json`")
    make_groups(folder / "few", 2, 2)
    work = folder / "full"
    commands = (
        gconet("detect", folder / "few", "--bundle", bundle, "--threads", 1, "--out", work / "maps"),
        gconet("consensus", folder / "few" / "00", "--bundle", bundle, "--threads", 1, "--out", work / "c.safetensors"),
        gconet("evaluate", "--pred", folder / "scored", "--gt", folder / "scored", "--json", work / "scores.json"),
        build_words(checkpoint, work / "tiny.gconet"),
    )
    must_succeed(gconet("detect", folder / "few", "--bundle", bundle, "--threads", 1, "--out", folder / "scored"))
    for words in commands:
        for limit in limits:
            work.mkdir()
            _note_refusal(fault, run_command(words, file_bytes=limit), work)
            shutil.rmtree(work)
    return fault


def write_to_read_only(bundle: Path, checkpoint: Path, folder: Path) -> Fault:
    """The same commands on a folder that may not be written."""
    fault = Fault("read-only folders: detect, consensus and build")
    make_groups(folder / "seen", 1, 2)
    work = folder / "read-only"
    work.mkdir(mode=0o555)
    for words in (
        gconet("detect", folder / "seen", "--bundle", bundle, "--threads", 1, "--out", work / "maps"),
        gconet("consensus", folder / "seen", "--bundle", bundle, "--threads", 1, "--out", work / "c.safetensors"),
        build_words(checkpoint, work / "tiny.gconet"),
    ):
        _note_refusal(fault, run_command(words, obedient=True), work, possible=False)
    return fault


def _note_refusal(fault: Fault, outcome: Outcome, work: Path, possible: bool = True) -> None:
    """A command must either be done, if that is `possible`, or say in one line why not and leave nothing half there."""
    lines = [line for line in outcome.error.splitlines() if line.startswith("gconet")]
    if outcome.code == EXIT_DONE:
        fault.note("done")
        if not possible:
            fault.lose("done, where nothing can be written")
        return
    fault.note("refused in one line, nothing left")
    if outcome.code != EXIT_BAD_INPUT or len(lines) != 1 or "Traceback" in outcome.error:
        fault.lose(f"exit code {outcome.code}: {outcome.error.strip()[-500:]}")
    if left := sorted(name for name in content(work) if not name.startswith("maps/00/")):  # a whole group may be
        fault.lose(f"left behind: {', '.join(left)}")


def must_succeed(words: Sequence[str]) -> Outcome:
    """Run a command that nothing disturbs; raises TargetError if it fails."""
    outcome = run_command(words)
    if outcome.code != EXIT_DONE:
        raise TargetError(f"{' '.join(words[3:5])} fails without any fault: {outcome.error.strip()[-500:]}")
    return outcome
