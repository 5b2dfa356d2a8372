"""A checkpoint in the authors' format gives the authors' numbers, produced once by running their published code."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from authors_format import authors_state, network_input

from gconet.runtime.preprocess import FloatArray
from gconet.train.checkpoint import load_checkpoint
from gconet.train.losses import LossWeights, gconet_losses
from gconet.train.model import GCoNet

RELATIVE = 1e-4
# Maps are judged in float64, which rounds alike on every CPU. The reference is a float32 result: its own rounding puts
# some of 100 352 pixels beyond 1e-5 (the worst at 1.60e-5; logits reach 23), so 1e-5 is asked of 999 pixels in 1000.
MAPS, MAPS_WORST = 1e-5, 2e-5


@pytest.fixture(scope="module")
def figures(shared: Path) -> Mapping[str, FloatArray]:
    """The authors' figures."""
    return dict(np.load(shared / "reference" / "network_outputs.npz"))


@pytest.fixture(scope="module")
def network(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> GCoNet:
    """Our network with the regenerated weights, loaded from a `.pth` as the authors save it."""
    path = tmp_path_factory.mktemp("authors") / "final_gconet.pth"
    torch.save(authors_state(shared / "reference"), path)
    return load_checkpoint(path)


def assert_maps_equal(actual: torch.Tensor, expected: FloatArray) -> None:
    """Judge maps in [0, 1]."""
    difference = np.abs(actual.numpy() - expected)
    assert difference.max() <= MAPS_WORST
    assert np.quantile(difference, 0.999) <= MAPS


def relative_error(actual: torch.Tensor, expected: FloatArray) -> float:
    """Largest difference relative to the largest expected value."""
    return float(np.abs(actual.numpy() - expected).max() / np.abs(expected).max())


@torch.inference_mode()
def test_maps_attention_and_consensus(network: GCoNet, figures: Mapping[str, FloatArray]) -> None:
    images = network_input(2, 12)
    attention, consensus = network.consensus(images)
    assert np.abs(attention[:, 0].numpy() - figures["eval_n2_attention"]).max() <= 1e-5
    assert relative_error(consensus.flatten(), figures["eval_n2_consensus"]) <= RELATIVE
    exact = copy.deepcopy(network).double()
    assert_maps_equal(exact(images.double()), figures["eval_n2_last"])
    assert (network(images) - exact(images.double())).abs().max() <= 5e-5


@torch.inference_mode()
def test_training_outputs_and_losses(network: GCoNet, figures: Mapping[str, FloatArray]) -> None:
    outputs = network.training_outputs(network_input(4, 15))
    assert outputs.class_logits is not None
    assert outputs.crossed_logits is not None
    assert relative_error(outputs.class_logits, figures["train_cls"]) <= RELATIVE
    assert relative_error(outputs.crossed_logits[:, :, ::4, ::4], figures["train_pred_x5"]) <= RELATIVE
    exact = copy.deepcopy(network).double().training_outputs(network_input(4, 15).double())
    assert_maps_equal(exact.sides[-1].maps[:, :, ::2, ::2], figures["train_last"])

    truth = (network_input(4, 16)[:, :1] > 0).float()
    losses = gconet_losses(outputs, truth, torch.tensor([7, 7, 30, 30]), LossWeights())
    assert losses.saliency.item() == pytest.approx(float(figures["loss_sal_sum"]), rel=RELATIVE)
    assert losses.collaborating.item() == pytest.approx(float(figures["loss_gcm"]), rel=RELATIVE)
    assert losses.classification.item() == pytest.approx(float(figures["loss_cls"]), rel=RELATIVE)
