"""What one Ray worker does: load the bundle once, then write the maps of group after group. Needs no Ray itself."""

from __future__ import annotations

import os
import platform
import time
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from gconet.runtime.bundle import describe_file
from gconet.runtime.detector import Detector, load
from gconet.runtime.errors import GconetError, UsageError, one_line
from gconet.runtime.manifest import MANIFEST_NAME
from gconet.runtime.map_files import write_maps
from gconet.runtime.preprocess import FloatArray
from gconet.runtime.run_folder import RunFolder, Stopped

# done; failed: this group cannot be done; stopped: the run ended first; unfit: the worker cannot do any group.
Status = Literal["done", "failed", "stopped", "unfit"]


@dataclass(frozen=True)
class Job:
    """What every worker of a run needs to know; paths are absolute.

    Attributes
    ----------
    bundle, bundle_sha256 : the folder, and the SHA-256 of its manifest: every machine must have the same one.
    device, threads : as for `load`.
    run : path of the `RunFolder`.
    photo : one of the run's photos, to see whether this machine has them.
    consensus : (C,) to find in each photo; None to find what each group shares.
    """

    bundle: str
    bundle_sha256: str
    device: str
    threads: int
    run: str
    photo: str
    consensus: FloatArray | None = None


class GroupWorker:
    """A callable that Ray Data keeps one of per actor.

    Errors that a user can mend are answers, not exceptions: a run goes on with its other groups.
    """

    def __init__(self, job: Job) -> None:
        self._job, self._run = job, RunFolder(Path(job.run))
        self._name = f"{platform.node()}:{os.getpid()}"
        self._unfit = ""
        try:
            self._detector = self._open()
        except Stopped:
            self._unfit = f"{platform.node()} does not see {self._run.path.parent}: {_shared('--out')}"
        except GconetError as error:
            self._unfit = f"{platform.node()}: {error}"

    def __call__(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Write the maps of one group, all or none.

        Parameters
        ----------
        row : `index` of the group, `photos` and `maps`, absolute paths.

        Returns
        -------
        `index`, `status` (see `Status`), `message` of what went wrong or "", `seconds`, `worker` as "machine:process".
        """
        start = time.perf_counter()
        status, message = ("unfit", self._unfit) if self._unfit else self._write(row)
        return {
            "index": row["index"],
            "status": status,
            "message": message,
            "seconds": time.perf_counter() - start,
            "worker": self._name,
        }

    def _open(self) -> Detector:
        self._run.check()
        if not Path(self._job.photo).is_file():
            raise UsageError(f"does not see {self._job.photo}: {_shared('the photos')}")
        if not Path(self._job.bundle).is_dir():
            raise UsageError(f"does not see {self._job.bundle}: {_shared('the bundle')}")
        detector = load(self._job.bundle, self._job.device, self._job.threads)
        if describe_file(detector.bundle.folder / MANIFEST_NAME).sha256 != self._job.bundle_sha256:
            raise UsageError(f"has another bundle at {self._job.bundle}: {_shared('the bundle')}")
        return detector

    def _write(self, row: Mapping[str, Any]) -> tuple[Status, str]:
        try:
            with self._run.attempt(int(row["index"])):
                photos = [Path(photo) for photo in row["photos"]]
                write_maps([Path(path) for path in row["maps"]], self._run.watched(self._maps(photos)))
        except Stopped:
            return "stopped", ""
        except GconetError as error:
            return "failed", str(error)
        except Exception as error:  # a fault of ours: the traceback belongs in Ray's log, the line in the run's list
            traceback.print_exc()
            return "failed", f"{type(error).__name__}: {one_line(error)}"
        return "done", ""

    def _maps(self, photos: list[Path]) -> Iterator[FloatArray]:
        if self._job.consensus is not None:
            return self._detector.segment_stream(photos, self._job.consensus)
        return self._detector.stream(photos, self._run.check)


def _shared(what: str) -> str:
    return f"put {what} on storage that all of Ray's machines share, under the same path"
