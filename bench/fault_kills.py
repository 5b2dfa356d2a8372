"""Commands that are killed, or run twice at once: what is left under a final name is whole."""

from __future__ import annotations

import random
import shutil
from collections.abc import Mapping
from pathlib import Path

from gconet.bench.fault_commands import Outcome, build_arguments, content, make_groups
from gconet.bench.fault_forks import ForkServer, fork_server
from gconet.bench.fault_rows import Fault
from gconet.runtime.atomic import PARTIAL
from gconet.runtime.bundle import open_bundle
from gconet.runtime.command_line import EXIT_DONE
from gconet.runtime.errors import GconetError, TargetError

PUBLISH_SECONDS = 0.1


def kill_detect(bundle: Path, folder: Path, kills: int, draw: random.Random) -> Fault:
    """Kill `gconet detect` at random moments, each time going on with --skip-existing, until the maps are complete."""
    fault = Fault("`kill -9` of `gconet detect` at a random moment, then the same command again")
    make_groups(folder / "photos", 8, 3)
    out = folder / "maps"
    words = [folder / "photos", "--bundle", bundle, "--threads", "1", "--skip-existing", "--out", out]
    with fork_server("detect", words) as server:
        _whole(server)
        shutil.rmtree(out)
        whole = _whole(server)
        expected = content(out)
        shutil.rmtree(out)
        while fault.tries < kills and not fault.losses:
            outcome = server.once(kill_after=draw.uniform(0.0 if draw.random() < 0.5 else 0.5, 1.0) * whole.seconds)
            if not outcome.killed:
                _check_maps(fault, outcome, out, expected)
                continue
            files = content(out) if out.exists() else {}
            named = {name: data for name, data in files.items() if PARTIAL not in name}
            if wrong := [name for name, data in named.items() if expected.get(name) != data]:
                fault.lose(f"not the whole map: {', '.join(wrong)}")
            done = "no map yet" if not named else "some maps" if len(named) < len(expected) else "all maps"
            fault.note(f"{done}, each whole")
        _check_maps(fault, server.once(), out, expected)
    return fault


def _check_maps(fault: Fault, outcome: Outcome, out: Path, expected: Mapping[str, bytes]) -> None:
    """A run that was left alone must have done what the killed ones had left; the next one begins anew."""
    if outcome.code != EXIT_DONE:
        fault.lose(f"the command failed after a kill: {outcome.error.strip()}")
    elif (found := content(out)) != expected:
        fault.lose(f"after a complete run: {sorted(found.keys() ^ expected.keys()) or 'other maps'}")
    shutil.rmtree(out, ignore_errors=True)


def kill_build(checkpoint: Path, folder: Path, kills: int, draw: random.Random) -> Fault:
    """Kill builds at random moments: at first with no bundle there, then over an earlier one."""
    fault = Fault("`kill -9` of `gconet build` at a random moment, then the same again")
    out = folder / "killed" / "tiny.gconet"
    with fork_server("build", build_arguments(checkpoint, out)) as server:
        _whole(server)
        whole = _whole(server)
        shutil.rmtree(out)
        while fault.tries < kills and not fault.losses:
            if fault.tries * 2 >= kills and not out.exists():
                _check_bundle(fault, server.once(), out)
            there = out.exists()
            moment = draw.uniform(0.0 if draw.random() < 0.7 else 0.9, 1.02) * whole.seconds
            outcome = server.once(kill_after=moment)
            if outcome.killed:
                fault.note(_bundle_after(fault, out, there))
            else:  # it was faster
                _check_bundle(fault, outcome, out)
                if fault.tries * 2 < kills:
                    shutil.rmtree(out)
        _check_bundle(fault, server.once(), out)
    return fault


def build_twice(checkpoint: Path, folder: Path, pairs: int) -> Fault:
    """Two builds of the same bundle at once."""
    fault = Fault("two builds of the same bundle at once")
    out = folder / "twice" / "tiny.gconet"
    with fork_server("build", build_arguments(checkpoint, out)) as server:
        for _ in range(pairs):
            outcomes = server.together(2)
            done = sum(outcome.code == EXIT_DONE for outcome in outcomes)
            fault.note(("none done", "one done", "both done")[done])
            for outcome in outcomes:
                _check_bundle(fault, outcome, out)
    return fault


def kill_publishing(folder: Path, kills: int, draw: random.Random) -> Fault:
    """Kill a process that does nothing but put bundles in the place of earlier ones."""
    fault = Fault("`kill -9` while bundles take the place of earlier ones")
    out = folder / "published" / "small.gconet"
    with fork_server("publish", [out]) as server:
        for _ in range(kills):
            there = out.exists()
            outcome = server.once(kill_after=draw.uniform(0.0, PUBLISH_SECONDS))
            if not outcome.killed:
                raise TargetError(f"the process that writes bundles ended by itself: {outcome.error.strip()}")
            fault.note(_bundle_after(fault, out, there))
    return fault


def _whole(server: ForkServer) -> Outcome:
    """A run that nothing disturbs."""
    outcome = server.once()
    if outcome.code != EXIT_DONE:
        raise TargetError(f"the command fails without any fault: {outcome.error.strip()[-500:]}")
    return outcome


def _bundle_after(fault: Fault, out: Path, there: bool) -> str:
    """What a fault left of a bundle; half a one, or none where one was before, is a loss."""
    if not out.exists():
        if there:
            fault.lose("the earlier bundle is gone")
        return "no bundle yet"
    try:
        open_bundle(out)
    except GconetError as error:
        fault.lose(str(error))
    return "a whole bundle"


def _check_bundle(fault: Fault, outcome: Outcome, out: Path) -> None:
    """A build that was left alone must have left its bundle, and nothing beside it."""
    if outcome.code != EXIT_DONE:
        fault.lose(f"the build failed: {outcome.error.strip()}")
    _bundle_after(fault, out, True)
    if litter := sorted(path.name for path in out.parent.iterdir() if path != out):
        fault.lose(f"left beside the bundle: {', '.join(litter)}")
