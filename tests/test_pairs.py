"""Training examples: pairs of groups, augmentation, what is pasted in or put beside, and the masks that go with it."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from shapes import SHAPES, make_cutouts, make_data

from gconet.train import pairs
from gconet.train.augment import Picture, augment, resize_pair
from gconet.train.config import Augmentation, TrainingConfig
from gconet.train.cutouts import Cutouts
from gconet.train.data_check import checked_groups
from gconet.train.groups import LabelledGroup, Sample, read_groups
from gconet.train.pairs import Example, PairDataset, beside


@pytest.fixture
def config(tmp_path: Path) -> TrainingConfig:
    """Three groups of four, two cut-outs, every augmentation but the jigsaw."""
    return TrainingConfig(
        data=make_data(tmp_path / "data"), out=tmp_path / "run", group_size=2, steps=6, sizes=(32, 48),
        cutouts=make_cutouts(tmp_path / "cutouts"),
        augmentation=Augmentation(rotation=10, scale=(0.9, 1.1), colour=0.1, synthetic=0.3, distractor=0.3),
    )  # fmt: skip


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The cut-outs that are read, by number."""
    numbers: list[int] = []
    read = Cutouts.read

    def remember(self: Cutouts, index: int) -> Picture:
        numbers.append(index)
        return read(self, index)

    monkeypatch.setattr(Cutouts, "read", remember)
    return numbers


def test_pairs_are_the_same_whenever_they_are_made(config: TrainingConfig) -> None:
    groups = read_groups(config.data)
    first, second = (PairDataset(groups, config, 6) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first[4], second[4], strict=True))
    other = PairDataset(groups, dataclasses.replace(config, seed=1), 6)
    assert not torch.equal(first[4].images, other[4].images)
    assert first[0].images.shape == (4, 3, 32, 32)
    assert first[5].images.shape == (4, 3, 48, 48)


@pytest.mark.parametrize("options", [Augmentation(), Augmentation(rotation=25, scale=(0.8, 1.3))])
def test_photo_and_mask_stay_together(options: Augmentation, rng: np.random.Generator) -> None:
    """A photo that is its own mask, put through every augmentation, still is; masks stay black and white."""
    mask = Image.new("L", (64, 64))
    mask.paste(255, (20, 12, 50, 40))
    for _ in range(20):
        photo, turned = (np.asarray(picture) for picture in augment(mask.convert("RGB"), mask, options, rng))
        assert set(np.unique(turned)) == {0, 255}
        # The nearest of four neighbours has at least a quarter of the weight.
        assert (photo[turned == 255] >= 63).all()
        assert (photo[turned == 0] <= 192).all()


def test_angles_are_uniform_up_to_the_largest(rng: np.random.Generator) -> None:
    """A bar from the centre to the right, seen from there."""
    mask = Image.new("L", (65, 65))
    mask.paste(255, (33, 32, 60, 33))
    angles = []
    for _ in range(200):
        _, turned = augment(mask.convert("RGB"), mask, Augmentation(flip=False), rng)
        y, x = np.argwhere(np.asarray(turned)).mean(axis=0) - 32
        angles.append(np.degrees(np.arctan2(y, x)))
    assert -91 < min(angles) < -70 < 70 < max(angles) < 91
    assert np.histogram(angles, bins=4, range=(-91, 91))[0].min() > 30


def test_masks_are_resized_by_nearest_neighbour() -> None:
    mask = Image.fromarray(np.indices((50, 70)).sum(axis=0).astype(np.uint8) % 2 * 255)
    _, resized = resize_pair(mask.convert("RGB"), mask, 32)
    assert set(np.unique(np.asarray(resized))) == {0, 255}


def test_each_epoch_every_group_leads_once(config: TrainingConfig) -> None:
    config = dataclasses.replace(config, augmentation=Augmentation(), epochs=4, steps=0)
    groups = read_groups(config.data)
    steps = config.steps_over(len(groups))
    assert steps == 4 * len(groups)
    assert dataclasses.replace(config, pairs_per_step=5).steps_over(len(groups)) == 3  # 12 pairs, five a step
    dataset = PairDataset(groups, config, steps)
    labels = [dataset[index].labels[:: config.group_size].tolist() for index in range(steps)]
    epochs = [[first for first, _ in labels[start : start + len(groups)]] for start in range(0, steps, len(groups))]
    assert all(sorted(epoch) == [0, 1, 2] for epoch in epochs)
    assert len(set(map(tuple, epochs))) > 1
    assert all(first != second for first, second in labels)
    assert {second for _, second in labels} == {0, 1, 2}


@pytest.mark.parametrize(("share", "labels"), [(0.0, {0, 1, 2}), (1.0, {3, 4})])
def test_synthetic_groups_are_labelled_by_their_cutout(config: TrainingConfig, share: float, labels: set[int]) -> None:
    config = dataclasses.replace(config, augmentation=Augmentation(synthetic=share))
    dataset = PairDataset(read_groups(config.data), config, 20)
    batches = [dataset[index] for index in range(20)]
    assert set(torch.cat([batch.labels for batch in batches]).tolist()) == labels
    assert all(batch.truth.flatten(1).amax() > 0.9 for batch in batches)
    assert all(batch.labels[0] != batch.labels[-1] for batch in batches)


@pytest.mark.parametrize("shares", [{"synthetic": 1.0}, {"instances": 1.0}, {"synthetic": 0.5, "instances": 0.5}])
def test_synthetic_photos_show_nothing_of_the_pair_unmarked(
    config: TrainingConfig, monkeypatch: pytest.MonkeyPatch, drawn: list[int], shares: dict[str, float]
) -> None:
    """Neither as a distractor nor in the background: it would be a shared object that is marked as none."""
    assert config.cutouts
    for picture in list(config.cutouts.iterdir()):
        shutil.copy(picture, picture.with_stem(f"another-{picture.stem}"))
    config = dataclasses.replace(config, augmentation=Augmentation(**shares), group_size=3)
    groups = read_groups(config.data)
    dataset = PairDataset(groups, config, 30)
    photos = [sample.photo for group in groups for sample in group.samples]
    backgrounds: list[str] = []
    open_pictures = pairs.read_pictures

    def remember_background(sample: Sample) -> tuple[Picture, Picture]:
        backgrounds.append(sample.photo.parent.name)
        return open_pictures(sample)

    def shown(cutout: int) -> str:
        """Its picture's name, or the class of the photo it comes from."""
        return str(cutout) if cutout < 4 else photos[cutout - 4].parent.name

    monkeypatch.setattr(pairs, "read_pictures", remember_background)
    distractors = 0
    for index in range(30):
        drawn.clear()
        backgrounds.clear()
        labels = dataset[index].labels[::3].tolist()
        classes = {groups[k].name.split("/")[-1] if k < len(groups) else str(k - len(groups)) for k in labels}
        assert len(classes) == 2
        own = [cutout for cutout in set(drawn) if shown(cutout) in classes]
        assert [drawn.count(cutout) for cutout in own] == [3, 3]
        others = [shown(cutout) for cutout in drawn if cutout not in own]
        assert not classes & set(backgrounds)
        assert len(backgrounds) == 6
        distractors += len(others)
    assert distractors > 60


def test_without_a_third_object_synthetic_photos_have_no_distractor(config: TrainingConfig, drawn: list[int]) -> None:
    """There are two cut-outs, and no photo shows both."""
    config = dataclasses.replace(config, augmentation=Augmentation(synthetic=1.0), group_size=3)
    groups = read_groups(config.data)
    labels = PairDataset(groups, config, 1)[0].labels - len(groups)
    assert drawn == labels.tolist()


@pytest.mark.parametrize("count", [2, 3])
def test_no_pair_is_of_one_class_twice(config: TrainingConfig, count: int, drawn: list[int]) -> None:
    """An object cut out of a photo is of the same class as its group, and as every other object of the group."""
    groups = read_groups(config.data)[:count]
    options = Augmentation(instances=0.6)
    dataset = PairDataset(groups, dataclasses.replace(config, cutouts=None, augmentation=options, group_size=1), 60)
    assert dataset.classes == count
    assert all(first != second for first, second in (dataset[index].labels.tolist() for index in range(60)))
    assert len(drawn) > 60


def test_small_groups_show_all_photos_before_repeating_any(config: TrainingConfig) -> None:
    config = dataclasses.replace(config, group_size=6, augmentation=Augmentation(flip=False, rotation=0))
    images = PairDataset(read_groups(config.data), config, 6)[0].images[:6]
    assert len({image.numpy().tobytes() for image in images}) == 4


def test_both_groups_of_a_pair_are_cut_to_the_smaller(tmp_path: Path) -> None:
    root = make_data(tmp_path)
    (root / "images/toys/disc/1.jpg").unlink()
    config = TrainingConfig(root, tmp_path / "run", group_size=4, small_groups="cut", sizes=(32,))
    groups, _ = checked_groups(config)
    dataset = PairDataset(groups, config, 6)
    for batch in (dataset[index] for index in range(6)):
        smallest = min(len(groups[label].samples) for label in batch.labels)
        assert batch.labels.bincount().unique().tolist() in ([smallest], [0, smallest])
        assert len(batch.images) == len(batch.truth) == 2 * smallest


def plain(colour: tuple[int, int, int], size: int = 64) -> Example:
    """A photo of one colour, its own object everywhere."""
    photo, own = Image.new("RGB", (size, size), colour), Image.new("L", (size, size), 255)
    return Example(photo, own, Image.new("L", (size, size)))


def test_a_jigsaw_keeps_each_mask_on_its_own_part(rng: np.random.Generator) -> None:
    red, blue = plain((200, 0, 0)), plain((0, 0, 200))
    shares, upright = [], set()
    for _ in range(40):
        photo, own, other = (np.asarray(part) for part in beside(red, blue.photo, blue.own, rng))
        np.testing.assert_array_equal(own == 255, photo[..., 0] == 200)
        np.testing.assert_array_equal(other == 255, photo[..., 2] == 200)
        np.testing.assert_array_equal(own == 0, other == 255)
        shares.append(np.mean(other == 255))
        upright.add((bool((own == own[:1]).all()), bool(own[0, 0])))
    assert 0.3 < min(shares) < 0.45 < max(shares) < 0.62
    assert len(upright) == 4  # either axis, either side


@pytest.mark.parametrize("synthetic", [0.0, 1.0])
@pytest.mark.parametrize("augmentation", [{"jigsaw": 1.0}, {"distractor": 1.0}])
def test_what_is_put_in_of_the_other_group_is_marked_for_it_only(
    config: TrainingConfig, augmentation: dict[str, float], synthetic: float
) -> None:
    """Without, the crossed truth is empty; with, it marks pixels that the photo's own mask does not."""
    without = dataclasses.replace(config, sizes=(64,), augmentation=Augmentation(synthetic=synthetic))
    with_it = dataclasses.replace(without, augmentation=dataclasses.replace(without.augmentation, **augmentation))
    groups = read_groups(config.data)
    assert not any(batch.crossed_truth.any() for batch in map(PairDataset(groups, without, 6).__getitem__, range(6)))
    batches = [PairDataset(groups, with_it, 6)[index] for index in range(6)]
    marked = torch.cat([batch.crossed_truth.flatten(1).amax(dim=1) for batch in batches]) > 0.9
    overlap = torch.cat([(batch.crossed_truth * batch.truth).flatten(1).sum(dim=1) for batch in batches])
    area = torch.cat([batch.truth.flatten(1).sum(dim=1) for batch in batches])
    assert (overlap <= 0.1 * area + 16).all()  # soft borders only
    if "jigsaw" in augmentation:
        assert marked.float().mean() > 0.9
    elif synthetic:
        assert not marked.any()  # synthetic photos have distractors of their own
    else:
        assert 0.2 < marked.float().mean() < 0.9  # about half are cut-outs, of neither group


def test_without_cutouts_every_distractor_is_the_other_groups_object(config: TrainingConfig) -> None:
    config = dataclasses.replace(config, cutouts=None, sizes=(64,), augmentation=Augmentation(distractor=1.0))
    batch = PairDataset(read_groups(config.data), config, 1)[0]
    assert (batch.crossed_truth.flatten(1).amax(dim=1) > 0.9).float().mean() > 0.7  # some lie outside the photo


def test_no_cut_out_distractor_shows_the_object_of_either_group(config: TrainingConfig, drawn: list[int]) -> None:
    """It would be a shared object that is marked as none."""
    config = dataclasses.replace(config, cutouts=None, augmentation=Augmentation(distractor=1.0, instances=0.001))
    groups = read_groups(config.data)
    photos = [sample.photo for group in groups for sample in group.samples]
    dataset = PairDataset(groups, config, 12)
    seen = 0
    for index in range(12):
        drawn.clear()
        labels = dataset[index].labels.unique().tolist()
        assert max(labels) < len(groups)
        shown = {photos[index].parent.name for index in drawn}
        assert not {groups[label].name.split("/")[-1] for label in labels} & shown
        seen += len(drawn)
    assert seen > 10
    (left, right), _ = groups[:2], drawn.clear()
    batch = PairDataset([left, right], config, 1)[0]  # of two groups every cut-out shows one's object
    assert not drawn
    assert batch.crossed_truth.flatten(1).amax(dim=1).gt(0.9).any()


@pytest.mark.parametrize("with_cutouts", [True, False])
def test_instance_groups_show_one_object_of_one_photo(config: TrainingConfig, with_cutouts: bool) -> None:
    """Of groups that are all disc, square or triangle, each instance group pastes just one of the three."""
    cutouts = config.cutouts if with_cutouts else None
    still = Augmentation(flip=False, rotation=0, instances=1.0)
    config = dataclasses.replace(config, cutouts=cutouts, sizes=(64,), augmentation=still, group_size=3)
    groups = read_groups(config.data)
    dataset = PairDataset(groups, config, 12)
    first = len(groups) + (2 if with_cutouts else 0)
    assert dataset.classes == first
    deviations = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    means = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    seen = set()
    for batch in (dataset[index] for index in range(12)):
        assert batch.labels[0] != batch.labels[-1]
        for image, mask, label in zip(batch.images * deviations + means, batch.truth[:, 0], batch.labels, strict=True):
            shape = groups[int(label)].name.split("/")[-1]  # they are of that group's class
            inside = image[:, mask > 0.9]
            if inside.shape[1] < 30:
                continue  # nearly covered, or outside the photo
            colour = inside.median(dim=1).values
            wanted = torch.tensor(SHAPES[shape]) / 255
            assert (colour / colour.norm() - wanted / wanted.norm()).norm() < 0.1  # its brightness was changed
            seen.add(shape)
    assert seen == set(SHAPES)


@pytest.mark.parametrize(("balance", "share"), [(0.0, 2 / 3), (0.5, 0.9), (1.0, 0.98)])
def test_larger_groups_are_drawn_more_often_where_asked(config: TrainingConfig, balance: float, share: float) -> None:
    """One of three groups has nine times the photos; `share` is how many pairs it is in, drawn without return."""
    large, small, other = read_groups(config.data)
    groups = [LabelledGroup(large.name, large.samples * 9), small, other]
    options = dataclasses.replace(config, balance=balance, group_size=1, augmentation=Augmentation())
    dataset = PairDataset(groups, options, 90)
    chosen = [dataset[index].labels.tolist() for index in range(90)]
    assert all(first != second for first, second in chosen)
    assert sum(0 in pair for pair in chosen) / 90 == pytest.approx(share, abs=0.08)
