"""Reading and writing checkpoints: our safetensors format, the authors' `.pth`, and ImageNet VGG-16 weights.

No format is ever unpickled into code: `.pth` files are read with `weights_only=True`.

Our format is a safetensors file whose tensors carry the names of `GCoNet.state_dict()` and whose header holds one
JSON document under the key `gconet` (`CheckpointInfo`), so that a checkpoint describes itself.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from gconet.runtime.atomic import replacing
from gconet.runtime.errors import CheckpointError, one_line
from gconet.runtime.paths import kind_of
from gconet.runtime.preprocess import Preprocessing
from gconet.train.model import Architecture, GCoNet, initialise
from gconet.train.state_dict import authors_names, read_state_dict, rename_authors

SCHEMA = 1
SHIPPED = Path(__file__).parent / "weights" / "gconet-demo.safetensors"  # described in weights/MODEL_CARD.md

# Index of the convolutions in torchvision's `vgg16().features`, by block.
VGG16_FEATURES = ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28))


@dataclass(frozen=True)
class CheckpointInfo:
    """What a checkpoint says of itself: architecture, preprocessing (input size included) and provenance."""

    architecture: Architecture = field(default_factory=Architecture)
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    provenance: str = "unknown"

    def to_json(self) -> str:
        """JSON document, as stored in the header of our files."""
        return json.dumps({"schema": SCHEMA, **dataclasses.asdict(self)}, sort_keys=True)

    @staticmethod
    def from_json(text: str) -> CheckpointInfo:
        """Inverse of `to_json`; raises KeyError, TypeError or ValueError on anything else."""
        document = json.loads(text)
        if document["schema"] != SCHEMA:
            raise ValueError(f"schema {document['schema']} is not {SCHEMA}")
        return CheckpointInfo(
            architecture=Architecture.from_dict(document["architecture"]),
            preprocessing=Preprocessing.from_dict(document["preprocessing"]),
            provenance=str(document["provenance"]),
        )


@dataclass(frozen=True)
class Checkpoint:
    """Weights (float32, under the names of `GCoNet.state_dict()`), their description, and the dead keys left out."""

    state: dict[str, Tensor]
    info: CheckpointInfo
    dropped: tuple[str, ...] = ()

    def network(self) -> GCoNet:
        """The network in eval mode."""
        model = GCoNet(self.info.architecture)
        model.load_state_dict(self.state)
        return model.eval()


def load_checkpoint(path: str | os.PathLike[str]) -> GCoNet:
    """Load a network, in eval mode, from our `.safetensors` or the authors' `.pth`.

    Raises
    ------
    CheckpointError
        If the file is missing, is no checkpoint, its keys do not fit the architecture (every key is listed), or a
        weight is not finite.
    """
    return read_checkpoint(path).network()


def read_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Read a checkpoint without building the network; errors as for `load_checkpoint`."""
    path = Path(path)
    if kind_of(path, CheckpointError) != "file":
        raise CheckpointError(f"no checkpoint at {path}: give the path of a .safetensors or .pth file")
    if path.suffix == ".safetensors":
        checkpoint = _read_safetensors(path)
        _check_keys(checkpoint, path, names={})
    else:
        checkpoint = _read_authors(path)
        _check_keys(checkpoint, path, authors_names())
    for name, tensor in checkpoint.state.items():
        if not torch.isfinite(tensor).all():
            raise CheckpointError(f"{path} has a NaN or an infinity in {name}: train it again, or take an earlier one")
    return checkpoint


def random_checkpoint(seed: int = 0, architecture: Architecture | None = None) -> Checkpoint:
    """An untrained checkpoint, the same for the same seed."""
    model = initialise(GCoNet(architecture), seed)
    info = CheckpointInfo(model.architecture, provenance=f"untrained: random weights, seed {seed}")
    return Checkpoint(dict(model.state_dict()), info)


def inference_only(checkpoint: Checkpoint) -> Checkpoint:
    """Without the GCM and ACM heads, which only training uses."""
    state = {name: tensor for name, tensor in checkpoint.state.items() if not name.startswith(("gcm.", "acm."))}
    architecture = dataclasses.replace(checkpoint.info.architecture, gcm=False, acm=False)
    return Checkpoint(state, dataclasses.replace(checkpoint.info, architecture=architecture), checkpoint.dropped)


def save_checkpoint(checkpoint: Checkpoint, path: str | os.PathLike[str], dtype: torch.dtype = torch.float32) -> None:
    """Write our format, atomically: a file under its final name is complete.

    Parameters
    ----------
    dtype : of the stored weights; reading always gives float32.

    Raises
    ------
    CheckpointError
        If a weight is too large for `dtype`.
    UsageError
        If the file cannot be written.
    """
    # Copied: safetensors refuses tensors that share memory, as those of a `.pth` may.
    tensors = {name: tensor.to(dtype, copy=True).contiguous() for name, tensor in checkpoint.state.items()}
    for name, tensor in tensors.items():
        if dtype != torch.float32 and tensor.isinf().any():
            size = float(checkpoint.state[name].abs().max())
            raise CheckpointError(f"{name} reaches {size:.3g}, more than fp16 can hold: leave --half out")
    content = save(tensors, metadata={"gconet": checkpoint.info.to_json()})
    with replacing(Path(path)) as temporary:
        temporary.write_bytes(content)  # save_file() hides the system's errors, and leaves files if it is killed


def load_vgg16(model: GCoNet, path: str | os.PathLike[str]) -> None:
    """Initialise the encoder, in place, from ImageNet weights under torchvision's names (`features.0.weight`, …).

    Raises
    ------
    CheckpointError
        If the file is no state dict or lacks a convolution of this encoder; every key is listed.
    """
    source = read_state_dict(Path(path))
    target = model.encoder.state_dict()
    names = {
        f"features.{index}.{kind}": f"conv{block}.conv{block}_{position}.{kind}"
        for block, indices in enumerate(VGG16_FEATURES, start=1)
        for position, index in enumerate(indices, start=1)
        for kind in ("weight", "bias")
    }
    problems = [
        f"{name} {'missing' if name not in source else tuple(source[name].shape)} (wants {tuple(target[ours].shape)})"
        for name, ours in names.items()
        if name not in source or source[name].shape != target[ours].shape
    ]
    if problems:
        raise CheckpointError(f"{path} does not hold this encoder's VGG-16 weights: {', '.join(problems)}")
    model.encoder.load_state_dict({ours: source[name].float() for name, ours in names.items()})


def load_start(model: GCoNet, path: str | os.PathLike[str]) -> CheckpointInfo:
    """Set the weights of a network that is to be trained further, in place; what the checkpoint says of itself.

    The GCM and ACM heads keep their values where the checkpoint has none, or has an ACM for other classes.

    Raises
    ------
    CheckpointError
        As for `load_checkpoint`; and if one of the two has a GAM and the other has not, or other widths.
    """
    checkpoint = read_checkpoint(path)
    own = model.state_dict()
    there, here = checkpoint.info.architecture, model.architecture
    if there.gam != here.gam:
        raise CheckpointError(f"{path} was trained {'with' if there.gam else 'without'} a GAM: "
                              f"{'leave out' if there.gam else 'add'} --no-gam")  # fmt: skip
    widths = [(*a.encoder_channels, a.decoder_channels) for a in (there, here)]
    if widths[0] != widths[1]:
        raise CheckpointError(f"{path} has {widths[0]} channels, this network {widths[1]}: choose another checkpoint")
    fitting = {name: weight for name, weight in checkpoint.state.items()
               if name in own and own[name].shape == weight.shape}  # fmt: skip
    model.load_state_dict(own | fitting)
    return checkpoint.info


def _read_safetensors(path: Path) -> Checkpoint:
    try:
        with safe_open(path, framework="pt") as file:
            header = (file.metadata() or {}).get("gconet")
            state = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118 (no iterator)
    except Exception as error:  # SafetensorError and OSError, and what types of numbers bring that torch lacks
        raise CheckpointError(f"{path} is not a safetensors file ({one_line(error)})") from error
    if header is None:
        raise CheckpointError(
            f"{path} has no `gconet` header: convert the original with `gconet convert official.pth ours.safetensors`"
        )
    try:
        info = CheckpointInfo.from_json(header)
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise CheckpointError(
            f"{path} has a `gconet` header this version cannot read ({one_line(error)}): "
            "update gconet-deploy, or convert the original again"
        ) from error
    return Checkpoint(state, info)


def _read_authors(path: Path) -> Checkpoint:
    source = read_state_dict(path)
    state, dropped = rename_authors(source)
    if not any(name.startswith(("encoder.", "gam.", "decoder.")) for name in state):
        raise CheckpointError(f"{path} is not a GCoNet checkpoint: none of its {len(source)} keys is GCoNet's")
    classes = state["acm.bias"].shape[0] if "acm.bias" in state and state["acm.bias"].dim() else Architecture.classes
    architecture = Architecture(
        gcm=any(name.startswith("gcm.") for name in state),
        acm=any(name.startswith("acm.") for name in state),
        classes=classes,
    )
    info = CheckpointInfo(architecture, provenance=f"converted from {path.name}, a PyTorch state dict")
    return Checkpoint(state, info, dropped)


def _check_keys(checkpoint: Checkpoint, path: Path, names: Mapping[str, str]) -> None:
    """Compare with the architecture; `names` are those of the file, where they differ from ours."""
    with torch.device("meta"):
        expected = GCoNet(checkpoint.info.architecture).state_dict()
    problems = [f"missing {names.get(name, name)}" for name in expected if name not in checkpoint.state]
    problems += [f"unexpected {name}" for name in checkpoint.state if name not in expected]
    problems += [
        f"{names.get(name, name)} is {tuple(tensor.shape)}, wants {tuple(expected[name].shape)}"
        for name, tensor in checkpoint.state.items()
        if name in expected and tensor.shape != expected[name].shape
    ]
    if problems:
        raise CheckpointError(f"{path} does not fit GCoNet: {'; '.join(problems)}")
