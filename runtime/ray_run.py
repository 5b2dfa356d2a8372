"""`gconet detect --ray`: a tree of groups on Ray Data, each worker with the bundle loaded once."""

from __future__ import annotations

import contextlib
import io
import signal
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tqdm import tqdm

from gconet.runtime.bundle import Bundle, describe_file
from gconet.runtime.command_line import warn
from gconet.runtime.errors import TargetError, UsageError
from gconet.runtime.manifest import MANIFEST_NAME
from gconet.runtime.photos import Group
from gconet.runtime.preprocess import FloatArray
from gconet.runtime.ray_cluster import connected, last_line, machines, share_out
from gconet.runtime.ray_data import DataRun, Resources
from gconet.runtime.ray_worker import Job
from gconet.runtime.run_folder import RunFolder
from gconet.runtime.run_manifest import RunManifest
from gconet.runtime.session import runs_on_gpu

Plan = Sequence[tuple[Group, Sequence[Path]]]  # groups with a path for every photo's map, of `plan_maps`


@dataclass(frozen=True)
class RayOptions:
    """Where and how wide to run.

    Attributes
    ----------
    address : of a cluster, as for `ray.init`; "" for `RAY_ADDRESS`, or else a Ray of our own on this machine.
    workers, threads : how many workers, and the threads of each; None for what fits, see `share_out`.
    device : "auto", "cpu" or "cuda"; Ray gives each worker its GPU.
    """

    address: str = ""
    workers: int | None = None
    threads: int | None = None
    device: str = "auto"


def detect_on_ray(
    groups: Sequence[Group], plan: Plan, out: Path, bundle: Bundle, options: RayOptions, consensus: FloatArray | None
) -> None:
    """Write the maps of every group of `plan`, and `run.json` into `out`.

    A group that fails is named on standard error, and the others are done. The first Ctrl-C lets the workers drop what
    they are at, a second one does not wait for them; either way each group's maps are all there or none.

    Parameters
    ----------
    groups : all, with those that `plan` skips.
    consensus : (C,) to find in each photo by itself; None to find what each group shares.

    Raises
    ------
    UsageError
        If a group failed, the workers find no room, or nothing can be written.
    TargetError
        If Ray is missing or unreachable, or a worker cannot run the bundle.
    KeyboardInterrupt
        If interrupted.
    """
    if options.device.startswith("cuda:"):
        raise UsageError(f"Ray chooses the GPU of each worker: pass --device cuda, not {options.device}")
    digest = describe_file(bundle.folder / MANIFEST_NAME).sha256
    about = {
        "bundle": {
            "name": bundle.folder.name,
            "manifest_sha256": digest,
            "target": bundle.manifest.target,
            "precision": bundle.manifest.precision,
        },
        "consensus": consensus is not None,
    }
    manifest = RunManifest(out, about, groups, [group for group, _ in plan])
    if not plan:
        manifest.write("complete")
        return
    with connected(options.address or None) as ray, RunFolder.open(out) as run:
        gpu = runs_on_gpu(bundle.manifest.target, options.device)
        workers, threads = share_out(machines(ray), gpu, options.workers, options.threads)
        workers = min(workers, len(plan))
        manifest.describe(workers=workers, threads=threads, gpu=gpu, ray=version("ray"))
        job = Job(
            bundle=str(bundle.folder.absolute()),
            bundle_sha256=digest,
            device=options.device,
            threads=threads,
            run=str(run.path.absolute()),
            photo=str(plan[0][0].photos[0].absolute()),
            consensus=consensus,
        )
        # Ray tells standard output of every worker that died, in many lines.
        with contextlib.redirect_stdout(io.StringIO()), _stopping(run) as interruption:
            unfit = _collect(_answers(ray, job, plan, Resources(workers, threads, gpu)), run, manifest)
    _conclude(manifest, unfit, interruption.is_set())


def _answers(ray: Any, job: Job, plan: Plan, resources: Resources) -> Iterator[Mapping[str, Any]]:
    """Answers of `GroupWorker`, as they come."""
    # Largest first, one at a time to whoever is free: what is left for the end is small, so all end nearly together.
    order = sorted(range(len(plan)), key=lambda index: -len(plan[index][0].photos))
    rows = [
        {
            "index": index,
            "photos": [str(photo.absolute()) for photo in plan[index][0].photos],
            "maps": [str(path.absolute()) for path in plan[index][1]],
        }
        for index in order
    ]
    try:
        if ray.util.client.ray.is_connected():  # ray://, over which Ray Data does not run: it does so over there
            source = ray.remote(num_cpus=0)(DataRun).remote(job, rows, resources)
            yield from iter(lambda: ray.get(source.next.remote()), None)
        else:
            yield from iter(DataRun(job, rows, resources).next, None)
    except ray.exceptions.RayError as error:
        raise TargetError(f"Ray ended the run ({last_line(error)}); pass --skip-existing to go on") from error


def _collect(rows: Iterator[Mapping[str, Any]], run: RunFolder, manifest: RunManifest) -> str:
    """Note every answer; what a worker said that cannot do any group, or ""."""
    unfit = ""
    try:
        with tqdm(total=sum(record.photos for record in manifest.records), unit="photo", disable=None) as progress:
            for row in rows:
                if row["status"] == "unfit":
                    unfit = row["message"]
                    run.stop()
                    continue
                index = int(row["index"])
                manifest.note(index, row["status"], row["message"], row["seconds"], row["worker"])
                progress.update(manifest.records[index].photos)
    except BaseException:
        manifest.write("interrupted")
        raise
    return unfit


@contextlib.contextmanager
def _stopping(run: RunFolder) -> Iterator[threading.Event]:
    """While active, the first SIGINT ends the run and sets the event; a second one interrupts at once."""
    asked = threading.Event()

    def stop(*_: object) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()
        run.stop()
        print("gconet: stopping; Ctrl-C again not to wait for the workers", file=sys.stderr)

    earlier = signal.signal(signal.SIGINT, stop)
    try:
        yield asked
    finally:
        signal.signal(signal.SIGINT, earlier)


def _conclude(manifest: RunManifest, unfit: str, interrupted: bool) -> None:
    for record in manifest.records:
        if record.status == "waiting":  # Ray gave no answer, which it should
            record.status = "stopped"
    failed = [record for record in manifest.records if record.status == "failed"]
    missing = [record for record in manifest.records if record.status != "done"]
    manifest.write("interrupted" if interrupted else "incomplete" if missing else "complete")
    for record in failed:
        warn(f"group {record.folder}: {record.message}")
    if interrupted:
        raise KeyboardInterrupt
    if unfit:
        raise TargetError(unfit)
    if missing:
        done = len(manifest.records) - len(missing)
        why = "failed, named above" if len(failed) == len(missing) else "are not done: another run took the folder over"
        raise UsageError(
            f"{len(missing)} of {len(manifest.records)} groups {why}; {done} done: pass --skip-existing to go on"
        )
