"""GCoNet: Group Collaborative Learning for Co-Salient Object Detection (Fan et al., CVPR 2021).

A batch is one *group*: photos that share an object. The batch axis carries meaning, since every map depends on
every photo of the group: padding or splitting a group changes the answer.

N = photos in the group, H×W = input size, h×w = H/16 × W/16, C = channels of the last encoder block (512).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CONVOLUTIONS_PER_BLOCK = (2, 2, 3, 3, 3)  # VGG-16, configuration D of Simonyan & Zisserman
STRIDE = 16  # of the last encoder block
MAX_WIDTH = 65536  # of what a file may ask for
FINEST_CROSSED = 3  # decoder level: which object is meant is decided above it, finer ones draw its border


@dataclass(frozen=True)
class Architecture:
    """What a GCoNet consists of; the defaults are the paper's.

    Attributes
    ----------
    gam : group affinity module [3.2]; without it the consensus is the plain average of the features (baseline).
    gcm : group collaborating module [3.3], a training-only head.
    acm : auxiliary classification module [3.4], a training-only head.
    classes : group labels the ACM tells apart; DUTS_class has 291.
    encoder_channels : channels of the five VGG blocks. Narrow ones make networks small enough for tests.
    decoder_channels : channels of every decoder level.
    """

    gam: bool = True
    gcm: bool = True
    acm: bool = True
    classes: int = 291
    encoder_channels: tuple[int, int, int, int, int] = (64, 128, 256, 512, 512)
    decoder_channels: int = 64

    @staticmethod
    def from_dict(document: Mapping[str, Any]) -> Architecture:
        """From parsed JSON; raises KeyError, TypeError or ValueError if it is not what `dataclasses.asdict` gives."""
        a = Architecture(**{**document, "encoder_channels": tuple(document["encoder_channels"])})
        widths = (a.classes, a.decoder_channels, *a.encoder_channels)
        if len(a.encoder_channels) != 5 or not all(type(width) is int and 0 < width <= MAX_WIDTH for width in widths):
            raise ValueError(f"widths {widths} must be whole numbers from 1 to {MAX_WIDTH}, five of them the encoder's")
        if not all(isinstance(switch, bool) for switch in (a.gam, a.gcm, a.acm)):
            raise TypeError("gam, gcm and acm must be true or false")
        return a

    @property
    def feature_channels(self) -> int:
        """Channels of C5, the features the consensus is made of."""
        return self.encoder_channels[-1]


class GroupConsensus(NamedTuple):
    """What a group agrees on: attention (N, 1, h, w), each photo summing to 1; consensus (1, C, 1, 1)."""

    attention: Tensor
    consensus: Tensor


class EnlargedMaps(NamedTuple):
    """Maps (N, 1, H, W) in [0, 1], and 1 − maps, which keeps its digits where a map comes near 1."""

    maps: Tensor
    complement: Tensor

    @staticmethod
    def of(logits: Tensor, size: torch.Size) -> EnlargedMaps:
        """Maps of logits (N, 1, h, w), enlarged; in float32 also under autocast: in bf16 a sigmoid above 0.998 is 1."""
        logits = logits.float()
        return EnlargedMaps(upsample(logits.sigmoid(), size), upsample((-logits).sigmoid(), size))


class TrainingOutputs(NamedTuple):
    """Outputs for two groups of equal size, 2·N photos.

    Attributes
    ----------
    sides : maps of decoder levels 4, 3, 2, 1, enlarged to the input size.
    crossed : the same of levels 4 and 3 with the other group's consensus; empty unless asked for.
    attention : (2N, 1, h, w), each photo summing to 1; uniform without GAM.
    crossed_logits : (4N, 1, H, W) logits of the GCM; photos with their own group's consensus come first, then photos
        with the other group's, whose truth is empty. None without GCM.
    class_logits : (2N, classes) logits of the ACM. None without ACM.
    """

    sides: list[EnlargedMaps]
    crossed: list[EnlargedMaps]
    attention: Tensor
    crossed_logits: Tensor | None
    class_logits: Tensor | None


def upsample(x: Tensor, size: torch.Size | tuple[int, int]) -> Tensor:
    """Bilinear resize with aligned corners, the one form of resizing in GCoNet."""
    return F.interpolate(x, size=size, mode="bilinear", align_corners=True)


def convolution(in_channels: int, out_channels: int, kernel: int = 3) -> nn.Conv2d:
    """A convolution that keeps the spatial size."""
    return nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2)


def two_convolutions(in_channels: int, out_channels: int, kernel: int = 3) -> nn.Sequential:
    """Convolution, ReLU, convolution."""
    return nn.Sequential(
        convolution(in_channels, out_channels, kernel), nn.ReLU(), convolution(out_channels, out_channels, kernel)
    )


def depthwise_correlation(features: Tensor, consensus: Tensor) -> Tensor:
    """Correlate features (N, C, h, w) depth-wise with the consensus (1, C, 1, 1) as 1×1 kernel [3.2]."""
    return features * consensus


class Encoder(nn.Module):
    """VGG-16 without its classifier: five blocks, 2×2 max-pooling before each but the first."""

    def __init__(self, channels: tuple[int, ...]) -> None:
        super().__init__()
        in_channels = 3
        for block, (out_channels, count) in enumerate(zip(channels, CONVOLUTIONS_PER_BLOCK, strict=True), start=1):
            layers = nn.Sequential()
            for index in range(1, count + 1):
                layers.add_module(f"conv{block}_{index}", convolution(in_channels, out_channels))
                layers.add_module(f"relu{block}_{index}", nn.ReLU())
                in_channels = out_channels
            self.add_module(f"conv{block}", layers)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return the features of the five blocks, at strides 1, 2, 4, 8 and 16."""
        return self.continued(self.first(images, 1))

    def first(self, images: Tensor, blocks: int) -> list[Tensor]:
        """Features of the first so many blocks, at least one."""
        features: list[Tensor] = []
        for block in list(self.children())[:blocks]:
            features.append(block(F.max_pool2d(features[-1], 2) if features else images))
        return features

    def continued(self, features: list[Tensor]) -> list[Tensor]:
        """Features of all five blocks, from those of the first ones; of these only the last has to hold anything."""
        features = list(features)
        for block in list(self.children())[len(features) :]:
            features.append(block(F.max_pool2d(features[-1], 2)))
        return features


class GroupAffinityModule(nn.Module):
    """GAM [3.2]: attend to what every photo of the group has, then pool it into the consensus."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.query = convolution(channels, channels, 1)
        self.key = convolution(channels, channels, 1)
        self.output = convolution(channels, channels, 1)

    def forward(self, features: Tensor) -> GroupConsensus:
        """Consensus of one group of features (N, C, h, w)."""
        n, channels, h, w = features.shape
        query = self.query(features).flatten(2).transpose(1, 2).reshape(-1, channels)  # N·h·w, C
        key = self.key(features).flatten(2).transpose(0, 1).reshape(channels, -1)  # C, N·h·w
        affinity = (query @ key).view(n * h * w, n, h * w)  # pixel, photo, pixel of the photo
        agreement = affinity.amax(dim=-1).mean(dim=-1)  # N·h·w: best match in each photo, averaged over photos
        attention = (agreement.view(n, -1) / math.sqrt(channels)).softmax(dim=-1).view(n, 1, h, w)
        consensus = self.output(features * attention).mean(dim=(0, 2, 3), keepdim=True)  # 1, C, 1, 1
        return GroupConsensus(attention, consensus)


class AveragePooling(nn.Module):
    """The baseline's consensus: every pixel of the group counts the same."""

    def forward(self, features: Tensor) -> GroupConsensus:
        """Consensus of one group of features (N, C, h, w); the attention is uniform."""
        n, _, h, w = features.shape
        attention = features.new_full((n, 1, h, w), 1 / (h * w))
        return GroupConsensus(attention, features.mean(dim=(0, 2, 3), keepdim=True))


class DecoderLevel(nn.Module):
    """One step of the top-down pathway: enlarge, add the lateral features, smooth; a side head reads the map off."""

    def __init__(self, lateral_channels: int, channels: int) -> None:
        super().__init__()
        self.lateral = two_convolutions(lateral_channels, channels)
        self.fuse = two_convolutions(channels, channels)
        self.side = nn.Sequential(*two_convolutions(channels, channels), nn.ReLU(), convolution(channels, 1, 1))

    def forward(self, top: Tensor, features: Tensor) -> Tensor:
        """Combine the level above (N, D, ·, ·) with encoder features (N, L, H_k, W_k) into (N, D, H_k, W_k)."""
        lateral = self.lateral(features)
        return self.fuse(upsample(top, lateral.shape[2:]) + lateral)


class Decoder(nn.Module):
    """Feature pyramid over the encoder's blocks, from the consensus-weighted C5 down to the input's resolution."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        channels = architecture.decoder_channels
        self.top = two_convolutions(architecture.feature_channels, channels, kernel=1)
        self.levels = nn.ModuleDict(
            {str(k): DecoderLevel(architecture.encoder_channels[k - 1], channels) for k in (4, 3, 2, 1)}
        )

    def _top_down(self) -> list[tuple[int, DecoderLevel]]:
        return [(int(name), cast(DecoderLevel, level)) for name, level in self.levels.items()]

    def pyramid(self, features: list[Tensor], correlated: Tensor, finest: int = 1) -> list[Tensor]:
        """Return the decoder features of levels 4, 3, … to `finest`, each (N, D, H_k, W_k)."""
        p = self.top(correlated)  # N, D, h, w
        outputs = []
        for k, level in self._top_down():
            if k < finest:
                break
            p = level(p, features[k - 1])
            outputs.append(p)
        return outputs

    def side_logits(self, pyramid: list[Tensor]) -> list[Tensor]:
        """Logits (N, 1, H_k, W_k) of the side heads of a pyramid's levels."""
        return [level.side(p) for (_, level), p in zip(self._top_down(), pyramid, strict=False)]

    def forward(self, features: list[Tensor], correlated: Tensor) -> Tensor:
        """Return the logits (N, 1, H, W) of level 1, the answer."""
        _, finest = self._top_down()[-1]
        return finest.side(self.pyramid(features, correlated)[-1])


class GCoNet(nn.Module):
    """The whole network. `forward` answers; `training_outputs` gives what the losses need."""

    def __init__(self, architecture: Architecture | None = None) -> None:
        super().__init__()
        self.architecture = a = architecture or Architecture()
        self.encoder = Encoder(a.encoder_channels)
        self.gam = GroupAffinityModule(a.feature_channels) if a.gam else AveragePooling()
        self.decoder = Decoder(a)
        if a.gcm:
            hidden = a.feature_channels // 4
            self.gcm = nn.Sequential(convolution(a.feature_channels, hidden), nn.ReLU(), convolution(hidden, 1, 1))
        if a.acm:
            self.acm = nn.Linear(a.feature_channels, a.classes)

    def forward(self, images: Tensor) -> Tensor:
        """Co-saliency maps of one group.

        Parameters
        ----------
        images : (N, 3, H, W) float, RGB normalised with the ImageNet mean and standard deviation, N ≥ 1.

        Returns
        -------
        (N, 1, H, W) in [0, 1].
        """
        features = self.encoder(images)
        return self.segment(features, self.gam(features[-1]).consensus)

    def segment(self, features: list[Tensor], consensus: Tensor) -> Tensor:
        """Maps (N, 1, H, W) in [0, 1] of encoder features against a consensus (1, C, 1, 1)."""
        return self.decoder(features, depthwise_correlation(features[-1], consensus)).sigmoid()

    def coarse_maps(self, images: Tensor, finest: int) -> Tensor:
        """Maps (N, 1, H, W) in [0, 1] of one group, read off decoder level `finest`; level 1's are the answer."""
        features = self.encoder(images)
        correlated = depthwise_correlation(features[-1], self.gam(features[-1]).consensus)
        logits = self.decoder.side_logits(self.decoder.pyramid(features, correlated, finest))[-1]
        return upsample(logits.float().sigmoid(), images.shape[2:])

    def consensus(self, images: Tensor) -> GroupConsensus:
        """Attention and consensus of one group of images (N, 3, H, W)."""
        return self.gam(self.encoder(images)[-1])

    def training_outputs(self, images: Tensor, finest: int = 1, crossed: bool = False) -> TrainingOutputs:
        """Outputs for the losses of [3.2–3.5], for two groups of N images each, one after the other.

        Parameters
        ----------
        images : (2N, 3, H, W), normalised as for `forward`.
        finest : the last decoder level to compute; levels below it are not trained.
        crossed : also the coarse maps with the other group's consensus.

        Raises
        ------
        ValueError
            If the number of images is odd.
        """
        return self.outputs_of_features(self.encoder(images), images.shape[2:], finest, crossed)

    def outputs_of_features(
        self, features: list[Tensor], size: torch.Size, finest: int = 1, crossed: bool = False
    ) -> TrainingOutputs:
        """`training_outputs` of encoder features of images of this size; blocks below level `finest` are not used."""
        if len(features[-1]) % 2:
            raise ValueError(f"two groups of equal size are needed, got {len(features[-1])} images")
        first, second = features[-1].chunk(2)
        attention, consensus = zip(self.gam(first), self.gam(second), strict=True)
        own = torch.cat([depthwise_correlation(first, consensus[0]), depthwise_correlation(second, consensus[1])])
        other = torch.cat([depthwise_correlation(first, consensus[1]), depthwise_correlation(second, consensus[0])])

        def maps(correlated: Tensor, finest: int) -> list[EnlargedMaps]:
            pyramid = self.decoder.pyramid(features, correlated, finest)
            return [EnlargedMaps.of(side, size) for side in self.decoder.side_logits(pyramid)]

        others = maps(other, max(finest, FINEST_CROSSED)) if crossed else []

        crossed_logits = class_logits = None
        if self.architecture.gcm:
            crossed_logits = upsample(self.gcm(torch.cat([own, other])).float(), size)
        if self.architecture.acm:
            class_logits = self.acm(features[-1].mean(dim=(2, 3))).float()
        return TrainingOutputs(maps(own, finest), others, torch.cat(attention).float(), crossed_logits, class_logits)


def initialise(model: GCoNet, seed: int) -> GCoNet:
    """Fill `model` with seeded normal weights and zero biases, in place, and return it.

    Variances keep the size of activations: He et al. (2015) before a ReLU, 1 / fan-in elsewhere. The attention weights
    of a photo sum to 1, so pooling with them makes values H·W times smaller than the features; the GAM's output
    projection makes up for it at the paper's 14×14 features, else an untrained consensus is almost 0.
    """
    rectified = {
        layer
        for sequence in model.modules()
        if isinstance(sequence, nn.Sequential)
        for layer, successor in pairwise(sequence)
        if isinstance(successor, nn.ReLU)
    }
    generator = torch.Generator().manual_seed(seed)
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            activation: Literal["relu", "linear"] = "relu" if layer in rectified else "linear"
            nn.init.kaiming_normal_(layer.weight, nonlinearity=activation, generator=generator)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    if isinstance(model.gam, GroupAffinityModule):
        with torch.no_grad():
            model.gam.output.weight *= 14 * 14
    return model
