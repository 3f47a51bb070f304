"""What a session resumes from, and checkpoints that are intact and yet not what a session writes."""

import pytest
import torch
from made_up import changed, make_run
from torch import nn
from torch.optim import SGD
from torch.optim.lr_scheduler import StepLR

from flowerlib.errors import UserError
from flowerlib.runs import EpochMetrics
from flowerlib.training.augment import DRAWS
from flowerlib.training.checkpoint import read_last, write_last

ROW = EpochMetrics(**dict.fromkeys(EpochMetrics.model_fields, 0.25) | {"epoch": 0})
INFO = changed(make_run("resnet18-bs32", photos=3), draws=DRAWS).info


def states():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(8, 2))
    optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9)
    return model, optimizer, StepLR(optimizer, 2)


@pytest.fixture
def last(tmp_path):
    """A last.pt after one epoch."""
    write_last(tmp_path, INFO, *states(), [ROW], torch.zeros(3, 2))
    return tmp_path / "last.pt"


def test_a_checkpoint_gives_back_where_the_session_stood(last):
    progress = read_last(last.parent, INFO, *states())
    assert (progress.history, progress.logits.tolist(), progress.earlier) == ([ROW], [[0, 0]] * 3, ())


@pytest.mark.parametrize(
    "spoil",
    [
        lambda last: last["history"][0].update(epoch=1),
        lambda last: last["history"].append(last["history"][0]),
        lambda last: last["history"][0].update(val_acc=float("nan")),
        lambda last: last.update(logits=torch.zeros(4, 2)),
        lambda last: last.update(earlier=[{"epochs": 1}]),
        lambda last: last.pop("scheduler"),
        lambda last: last["inputs"].update(epochs="many"),
    ],
)
def test_a_checkpoint_with_a_wrong_part_is_damaged(last, spoil):
    content = torch.load(last, weights_only=True)
    spoil(content)
    torch.save(content, last)
    with pytest.raises(UserError, match=r"last\.pt can't be read"):
        read_last(last.parent, INFO, *states())


def test_a_setting_that_was_added_later_had_its_default_value(last):
    content = torch.load(last, weights_only=True)
    del content["inputs"]["translation"]
    content["inputs"]["repeats"] = 3  # no longer counts as an input
    torch.save(content, last)
    assert read_last(last.parent, INFO, *states()).history == [ROW]
    moved = INFO.model_copy(update={"settings": INFO.settings.model_copy(update={"translation": 0.2})})
    with pytest.raises(UserError, match=r"translation: 0\.1 then, 0\.2 now"):
        read_last(last.parent, moved, *states())


@pytest.mark.parametrize("draws", [None, 1, DRAWS + 1])
def test_a_checkpoint_with_other_random_draws_is_not_resumed(last, draws):
    content = torch.load(last, weights_only=True)
    assert content.pop("draws") == DRAWS
    torch.save(content if draws is None else content | {"draws": draws}, last)
    with pytest.raises(UserError, match=rf"version {draws or 1} then, {DRAWS} now.*--force"):
        read_last(last.parent, INFO, *states())
    done = INFO.model_copy(update={"settings": INFO.settings.model_copy(update={"epochs": 1})})
    assert read_last(last.parent, done, *states()).history == [ROW]  # no epoch is left to be trained
