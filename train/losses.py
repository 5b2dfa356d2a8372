"""The three losses of GCoNet [3.2–3.5] and their weighted sum."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from gconet.train.model import EnlargedMaps, TrainingOutputs

FOCAL_GAMMA = 2.0
SMALLEST_SHARE = 0.1  # of a pixel of the features; an object that covers less of each is not seen by them


@dataclass(frozen=True)
class LossWeights:
    """Weights of the total; the defaults are the ones the authors trained with.

    The others are ours. `pixel` weighs a cross-entropy beside the soft IoU, which alone is best served by logits
    without bound, and those no engine of less precision can follow. `attention` asks the GAM to look at the shared
    object: on little data the decoder else learns to do without a consensus that is of no use yet, and then nothing
    makes it useful. `crossed` weighs the coarse maps that the decoder draws with the other group's consensus: they must
    show that group's object, or nothing. The GCM asks the same of a head of its own, which the answer does not use.
    """

    saliency: float = 1.0
    collaborating: float = 250.0
    classification: float = 3.0
    pixel: float = 0.0
    attention: float = 0.0
    crossed: float = 0.0


class Losses(NamedTuple):
    """Weighted scalar losses; `total` is their sum. A head that lacks gives 0; `saliency` includes the pixel loss,
    `collaborating` the losses of attention and of crossed maps.
    """

    total: Tensor
    saliency: Tensor
    collaborating: Tensor
    classification: Tensor


def soft_iou_loss(maps: Tensor, truth: Tensor, reduction: Literal["sum", "mean"] = "sum") -> Tensor:
    """1 − soft intersection over union of each image, then summed or averaged over the images.

    The authors' code sums over the images of a batch; Eq. 2 of the paper averages.

    Parameters
    ----------
    maps, truth : (N, 1, H, W) in [0, 1].
    """
    per_image = 1 - _soft_iou(maps, truth)
    return per_image.sum() if reduction == "sum" else per_image.mean()


def _soft_iou(maps: Tensor, truth: Tensor) -> Tensor:
    intersection = (maps * truth).sum(dim=(1, 2, 3))
    union = maps.sum(dim=(1, 2, 3)) + truth.sum(dim=(1, 2, 3)) - intersection
    # An all-black map of an all-black truth is a perfect answer, not 0 / 0.
    tiny = torch.finfo(union.dtype).tiny
    return torch.where(union > 0, intersection / union.clamp(min=tiny), torch.ones_like(union))


def pixel_loss(enlarged: EnlargedMaps, truth: Tensor, reduction: Literal["sum", "mean"] = "sum") -> Tensor:
    """Binary cross-entropy, averaged over the pixels of each image, then summed or averaged over the images.

    From maps alone, a few pixels that are wrong and sure would have gradients ten thousand times too large: 1 − map is
    then a rounding error, and the cross-entropy divides by it.

    Parameters
    ----------
    enlarged : (N, 1, H, W) in [0, 1].
    truth : the same.
    """
    tiny = torch.finfo(truth.dtype).tiny
    on_object, beside = (share.clamp(min=tiny).log() for share in enlarged)
    per_image = -(truth * on_object + (1 - truth) * beside).mean(dim=(1, 2, 3))
    return per_image.sum() if reduction == "sum" else per_image.mean()


def attention_loss(attention: Tensor, truth: Tensor, reduction: Literal["sum", "mean"] = "sum") -> Tensor:
    """Negative logarithm of the share of a photo's attention that lies on its object.

    Parameters
    ----------
    attention : (N, 1, h, w), each photo summing to 1.
    truth : (N, 1, H, W) in [0, 1]; photos that show nothing of the object do not count.
    """
    object_share = F.adaptive_avg_pool2d(truth, (attention.shape[2], attention.shape[3]))
    on_object = (attention * object_share).sum(dim=(1, 2, 3))
    largest = object_share.amax(dim=(1, 2, 3))  # what the best attention would reach
    shows = largest > SMALLEST_SHARE
    # Bounded on both sides also where it does not count: no gradient may be infinite times nothing. No more than that,
    # as attention that is sure and wrong needs its gradient most: behind the softmax it is of the order of 1.
    on_object = on_object.clamp(min=torch.finfo(on_object.dtype).tiny)
    per_image = torch.where(shows, largest.clamp(min=SMALLEST_SHARE).log() - on_object.log(), 0)
    return per_image.sum() if reduction == "sum" else per_image.mean()


def collaborating_loss(crossed_logits: Tensor, truth: Tensor, crossed_truth: Tensor) -> Tensor:
    """Mean binary focal loss, γ = 2 [3.3]: the own consensus must find the object, the other group's only its own.

    Parameters
    ----------
    crossed_logits : (2N, 1, H, W), own pairs first, then crossed pairs.
    truth : (N, 1, H, W) in [0, 1], of the own pairs.
    crossed_truth : the same of the crossed pairs; all zero where no photo shows the other group's object, as in [3.3].
    """
    target = torch.cat([truth, crossed_truth])
    cross_entropy = F.binary_cross_entropy_with_logits(crossed_logits, target, reduction="none")
    return ((1 - torch.exp(-cross_entropy)) ** FOCAL_GAMMA * cross_entropy).mean()


def crossed_map_loss(
    enlarged: EnlargedMaps, crossed_truth: Tensor, reduction: Literal["sum", "mean"] = "sum"
) -> Tensor:
    """Cross-entropy of maps drawn with the other group's consensus, and their soft IoU where its object is in view.

    Parameters
    ----------
    enlarged : (N, 1, H, W) in [0, 1].
    crossed_truth : (N, 1, H, W) masks of the other group's object, empty where a photo does not show it.
    """
    shows = crossed_truth.amax(dim=(1, 2, 3)) > 0.5  # an empty truth has the same IoU with every map: none
    per_image = shows * (1 - _soft_iou(enlarged.maps, crossed_truth))
    iou_loss = per_image.sum() if reduction == "sum" else per_image.mean()
    return pixel_loss(enlarged, crossed_truth, reduction) + iou_loss


def gconet_losses(
    outputs: TrainingOutputs,
    truth: Tensor,
    labels: Tensor,
    weights: LossWeights,
    reduction: Literal["sum", "mean"] = "sum",
    crossed_truth: Tensor | None = None,
) -> Losses:
    """The losses of one pair of groups.

    Parameters
    ----------
    outputs : of `GCoNet.training_outputs` for N images.
    truth : (N, 1, H, W) masks in [0, 1].
    labels : (N,) int64 group labels.
    weights : of the three terms.
    reduction : of the soft IoU over images, see `soft_iou_loss`.
    crossed_truth : (N, 1, H, W) masks of the other group's object; None where no photo shows it.
    """
    zero = truth.new_zeros(())
    saliency = sum((soft_iou_loss(side.maps, truth, reduction) for side in outputs.sides), zero) * weights.saliency
    if weights.pixel:
        saliency += sum((pixel_loss(side, truth, reduction) for side in outputs.sides), zero) * weights.pixel
    collaborating = classification = zero
    if outputs.crossed_logits is not None:
        collaborating = weights.collaborating * collaborating_loss(
            outputs.crossed_logits, truth, torch.zeros_like(truth) if crossed_truth is None else crossed_truth
        )
    if weights.attention:
        collaborating = collaborating + weights.attention * attention_loss(outputs.attention, truth, reduction)
    if outputs.crossed and weights.crossed:
        nothing = torch.zeros_like(truth) if crossed_truth is None else crossed_truth
        terms = [crossed_map_loss(side, nothing, reduction) for side in outputs.crossed]
        collaborating = collaborating + weights.crossed * sum(terms, zero)
    if outputs.class_logits is not None:
        classification = weights.classification * F.cross_entropy(outputs.class_logits, labels)
    return Losses(saliency + collaborating + classification, saliency, collaborating, classification)
