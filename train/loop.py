"""The training loop of GCoNet [4.1], on one page.

A step averages the gradients of `pairs_per_step` pairs of groups, shared out among the processes. Pair number i of a
seed is always the same pair, so a run that was stopped goes on exactly where it was.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Subset

from gconet.train.config import TrainingConfig
from gconet.train.failures import check_losses
from gconet.train.groups import LabelledGroup
from gconet.train.interruption import Interruption
from gconet.train.kept_features import FeatureBatch, KeptFeatures
from gconet.train.losses import Losses, LossWeights, gconet_losses
from gconet.train.model import GCoNet, GroupAffinityModule
from gconet.train.new_levels import join_levels
from gconet.train.observer import Observer
from gconet.train.pairs import PairBatch, PairDataset
from gconet.train.processes import Processes
from gconet.train.training_state import TrainingState
from gconet.train.validation import autocast, validate


class PairLoss(nn.Module):
    """The losses of one pair as a module, which is what DistributedDataParallel wraps."""

    def __init__(self, model: GCoNet, weights: LossWeights) -> None:
        super().__init__()
        self.model = model
        self.weights = weights

    def forward(
        self, images: Tensor | list[Tensor], truth: Tensor, crossed_truth: Tensor, labels: Tensor, finest: int
    ) -> Losses:
        """Losses in float32, whatever the network's arithmetic, of decoder levels 4 to `finest`.

        In place of images, the features of the first encoder blocks will do.
        """
        encoder = self.model.encoder
        features = encoder(images) if isinstance(images, Tensor) else encoder.continued(images)
        crossed = self.weights.crossed > 0
        outputs = self.model.outputs_of_features(features, truth.shape[2:], finest, crossed)
        with torch.autocast(truth.device.type, enabled=False):
            return gconet_losses(outputs, truth, labels, self.weights, crossed_truth=crossed_truth)


def freeze(model: GCoNet, trainable_encoder: Sequence[str]) -> None:
    """Freeze the encoder but for the layers whose names start with one of the prefixes."""
    for name, parameter in model.encoder.named_parameters():
        parameter.requires_grad_(name.startswith(tuple(trainable_encoder)))


def make_optimizer(model: GCoNet, config: TrainingConfig, steps: int) -> torch.optim.Adam:
    """Adam over what is trainable; encoder and GAM learn at their own rates, decoder levels from when they join."""
    joins = {f"decoder.levels.{k}.": config.joins_at(int(k), steps) for k in model.decoder.levels}
    factors = {"encoder.": config.encoder_rate, "gam.": config.gam_rate}
    shares: dict[str, list[nn.Parameter]] = {prefix: [] for prefix in (*factors, *joins, "")}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            shares[next(prefix for prefix in shares if name.startswith(prefix))].append(parameter)
    groups = [
        {"params": parameters, "factor": factors.get(prefix, 1.0), "first": joins.get(prefix, 0)}
        for prefix, parameters in shares.items()
    ]
    return torch.optim.Adam([g for g in groups if g["params"]], lr=config.learning_rate, betas=config.betas)


def learning_rate(config: TrainingConfig, step: int, steps: int, first: int = 0) -> float:
    """The rate of a step for what learns from step `first` on, before the factors of encoder and GAM."""
    if step < first:
        return 0.0
    rate = config.learning_rate * min(1.0, (step - first + 1) / (config.warm_up + 1))
    if config.schedule == "constant":
        return rate
    return rate * (1 + math.cos(math.pi * (step - first) / (steps - first))) / 2


def train(
    model: GCoNet,
    groups: Sequence[LabelledGroup],
    held_out: Sequence[LabelledGroup],
    steps: int,
    state: TrainingState,
    observer: Observer | None,
    config: TrainingConfig,
    stop: Interruption,
) -> None:
    """Train `model` in place from `state.step` to `steps`, or until `stop` is requested anywhere; the state is saved.

    The process with an observer, one of all, also validates and saves. Raises TrainingError when the losses are no
    longer finite; what was saved before stays.
    """
    processes, device = Processes.current(), torch.device(config.device)
    dataset = PairDataset(groups, config, steps)
    pair_loss: nn.Module = PairLoss(model, config.weights)
    if processes.count > 1:
        # The two heads that training may lack, and frozen layers, have no gradients to wait for.
        coarse = max(config.levels) > 1  # finer levels have none then
        pair_loss = DistributedDataParallel(pair_loss, broadcast_buffers=False, find_unused_parameters=coarse)
    kept = KeptFeatures(model, dataset, config, steps) if config.reuse > 1 else None
    if kept and state.step < kept.steps:
        processes.say(kept.make_room())
    batches = _batches(dataset, kept, state.step, processes, config)
    local_pairs = config.pairs_per_step // processes.count

    while state.step < steps and not processes.any(stop.requested, device):
        size = config.size_at(state.step, steps)
        if size != state.size:
            for network in (model, *state.averages()):
                rescale_consensus(network, state.size, size)
            state.size = size
        finest, coarser = config.level_at(state.step, steps), config.level_at(max(state.step - 1, 0), steps)
        if finest < coarser and not config.start_from:  # a checkpoint has all levels
            photos, _ = dataset[state.step * config.pairs_per_step].images.to(device).chunk(2)  # the same everywhere
            for network in (model, *state.averages()):
                join_levels(network, photos, coarser, finest)
        model.train()
        rate = learning_rate(config, state.step, steps)
        for group in state.optimizer.param_groups:
            group["lr"] = learning_rate(config, state.step, steps, group["first"]) * group["factor"]
        state.optimizer.zero_grad(set_to_none=True)
        total = torch.zeros(4, device=device)
        for pair in range(local_pairs):
            batch = next(batches)
            last = pair == local_pairs - 1
            with _no_sync(pair_loss, not last), autocast(config):
                losses = pair_loss(*batch, finest)
                state.scaler.scale(losses.total / local_pairs).backward()
            total += torch.stack([loss.detach() for loss in losses]) / local_pairs
        state.scaler.step(state.optimizer)
        state.scaler.update()
        state.step += 1
        state.update_average(config.average)
        if processes.count > 1:
            dist.all_reduce(total)
            total /= processes.count
        losses_now = total.tolist()
        check_losses(losses_now, state.step, state.scaler)
        if observer:
            observer.step(state.step, losses_now, rate)
            if state.step % config.validate_every == 0 or state.step == steps:
                scores = validate(state.scored, held_out, size, config, finest)
                state.note_validation(scores, final=size == config.sizes[-1] and finest == 1)
                observer.validation(state.step, scores)
            if state.step % config.picture_every == 0:
                observer.picture(state.step, state.scored, held_out or groups, size, config, finest)
            if state.step % config.save_every == 0 and state.step < steps:
                state.save()
    if observer:
        state.save()


def rescale_consensus(model: GCoNet, old_size: int, new_size: int) -> None:
    """Keep the consensus as it is when the input size changes, in place.

    Attention sums to 1 over a photo's pixels and is then averaged over them, so what the output projection sees shrinks
    with their number; its weights make up for that.
    """
    if isinstance(model.gam, GroupAffinityModule):
        with torch.no_grad():
            model.gam.output.weight *= (new_size / old_size) ** 2


def _batches(
    dataset: PairDataset, kept: KeptFeatures | None, step: int, processes: Processes, config: TrainingConfig
) -> Iterator[PairBatch | FeatureBatch]:
    """This process's share of the pairs from a step on, on its device."""
    mine = range(step * config.pairs_per_step + processes.rank, len(dataset), processes.count)
    if kept:
        from_features = kept.steps * config.pairs_per_step
        yield from (kept[index] for index in mine if index < from_features)
        mine = range(next((i for i in mine if i >= from_features), len(dataset)), len(dataset), processes.count)
    loader = DataLoader(
        Subset(dataset, mine), batch_size=None, num_workers=config.workers, pin_memory=config.device != "cpu",
        worker_init_fn=Interruption.leave_to_the_parent,
    )  # fmt: skip
    for batch in loader:
        images, *rest = (tensor.to(config.device, non_blocking=True) for tensor in batch)
        if config.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        yield PairBatch(images, *rest)


def _no_sync(pair_loss: nn.Module, skip: bool) -> contextlib.AbstractContextManager[None]:
    return pair_loss.no_sync() if skip and isinstance(pair_loss, DistributedDataParallel) else contextlib.nullcontext()
