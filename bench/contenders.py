"""What is timed: bundles through our runtime, and peers that run the reference network."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gconet.bench.flops import Form
from gconet.bench.peers import EAGER, PEERS, Infer, PeerRequest, why_not_here
from gconet.runtime.bundle import Bundle
from gconet.runtime.errors import CheckpointError, TargetError, one_line
from gconet.runtime.large_groups import infer_group
from gconet.runtime.preprocess import FloatArray
from gconet.runtime.session import Session, open_session, runs_on_gpu


@dataclass(frozen=True)
class Contender:
    """Something to time.

    Attributes
    ----------
    engine : its name in reports.
    infer : network input (N, 3, S, S) to maps (N, 1, S, S).
    bundle : what it runs, or is the peer of.
    form : of the network it runs.
    process : arguments that make `peak_memory.py` run the same.
    session : of a bundle.
    """

    engine: str
    target: str
    precision: str
    infer: Infer
    bundle: Bundle
    form: Form
    process: tuple[str, ...]
    session: Session | None = None

    @property
    def is_peer(self) -> bool:
        """Whether it is no bundle."""
        return self.session is None


def bundle_contender(bundle: Bundle, threads: int | None, device: str = "auto") -> Contender:
    """Load a bundle for timing; arguments and errors as of `open_session`."""
    session = open_session(bundle, device, threads)
    manifest = bundle.manifest
    return Contender(
        engine=bundle.folder.name.removesuffix(".gconet"),
        target=manifest.target,
        precision=manifest.precision,
        infer=lambda images: infer_group(session, manifest, images),
        bundle=bundle,
        form="inference",
        process=("--bundle", str(bundle.folder), "--device", device, *_threads(threads)),
        session=session,
    )


def eager_contender(bundle: Bundle, request: PeerRequest) -> Contender:
    """Eager PyTorch running a bundle's network; raises TargetError if torch is missing."""
    if not importlib.util.find_spec("torch"):
        raise TargetError("the eager peer needs torch: pip install 'gconet-deploy[build]', or pass --no-eager")
    return _peer_contender(EAGER, bundle, request)


def peer_contenders(
    names: Sequence[str], bundle: Bundle, request: PeerRequest, inputs: Mapping[int, FloatArray]
) -> tuple[list[Contender], dict[str, str]]:
    """Load peers and let each answer every group once, since compilers and memory may give up at any size.

    Parameters
    ----------
    inputs : network input (N, 3, S, S) by group size N.

    Returns
    -------
    Those that work, and for each of the others why it is left out, by its name in reports.

    Raises
    ------
    CheckpointError
        If a checkpoint is named that cannot be read or is not the bundle's.
    """
    contenders, left_out = [], {}
    for name in names:
        peer = PEERS[name]
        if reason := why_not_here(peer, request):
            left_out[peer.engine] = reason
            continue
        try:
            contender = _peer_contender(name, bundle, request)
            for images in inputs.values():
                contender.infer(images)
            contenders.append(contender)
        except CheckpointError:
            raise
        except Exception as error:  # compilers, exporters and runtimes raise classes of their own
            left_out[peer.engine] = f"it does not run here: {one_line(error)}"
    return contenders, left_out


def _peer_contender(name: str, bundle: Bundle, request: PeerRequest) -> Contender:
    peer = PEERS[name]
    checkpoint = ("--checkpoint", str(request.checkpoint)) if request.checkpoint else ()
    process = ("--bundle", str(bundle.folder), "--peer", name, "--graphs", str(request.graphs), *checkpoint)
    return Contender(
        engine=peer.engine,
        target=peer.target,
        precision=peer.precision,
        infer=peer.load(request),
        bundle=bundle,
        form="reference",
        process=(*process, "--device", request.device, *_threads(request.threads)),
    )


def peers_device(bundles: Sequence[Bundle], device: str = "auto") -> str:
    """Where PyTorch runs beside bundles: where the first of them does, "cpu" or "cuda"; `device` as of `load`."""
    return "cuda" if runs_on_gpu(bundles[0].manifest.target, device) else "cpu"


def _threads(threads: int | None) -> tuple[str, ...]:
    return ("--threads", str(threads)) if threads else ()
