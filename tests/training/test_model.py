import hashlib

import pytest
import torch
from torch import nn
from torchvision.models import get_model, get_model_weights, resnet18, resnet34

from flowerlib.errors import UserError
from flowerlib.training import model as model_module
from flowerlib.training.model import build_model, describe_model, for_evaluation, load_weights, new_network

NONE = load_weights("none", "resnet18")


@pytest.fixture(scope="module")
def weights_folder_of_ours(tmp_path_factory):
    """A folder of resnet18.pth in float16, with a head of 7 classes, and resnet34.pth."""
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    for name, network in (("resnet18", resnet18), ("resnet34", resnet34)):
        state_dict = network(num_classes=7).state_dict()
        torch.save({key: value.half() for key, value in state_dict.items()}, folder / f"{name}.pth")
    return folder


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "vit_b_32", "densenet121", "vgg11"])
def test_the_head_gets_the_classes_where_torchvision_puts_it(name):
    ours, theirs = build_model(name, 3, NONE).state_dict(), get_model(name, num_classes=3).state_dict()
    assert {key: value.shape for key, value in ours.items()} == {key: value.shape for key, value in theirs.items()}


def test_lite0_gets_a_head_of_the_classes():
    model = build_model("efficientnet_lite0", 3, NONE).eval()
    assert model(torch.zeros(1, 3, 224, 224)).shape == (1, 3)


@pytest.mark.parametrize("name", ["resnet18", "vit_b_32", "mobilenet_v2"])
@pytest.mark.parametrize("freeze", [False, True])
def test_a_network_is_described_as_torchvision_describes_it(name, freeze):
    model = build_model(name, 1000, NONE, freeze)
    described, published = describe_model(model, 224), get_model_weights(name).DEFAULT.meta
    assert described.parameters == published["num_params"]
    assert described.multiply_adds / 1e9 == pytest.approx(published["_ops"], abs=1e-3)
    head = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
    assert described.trained == (head.weight.numel() + 1000 if freeze else described.parameters)


@pytest.mark.parametrize("name", ["squeezenet1_0", "googlenet"])
def test_networks_without_one_linear_head_are_refused(name):
    with pytest.raises(UserError, match="resnet18"):
        build_model(name, 3, NONE)


def test_weights_of_a_file_become_the_backbone_and_their_head_is_dropped(weights_folder_of_ours):
    weights = load_weights(str(weights_folder_of_ours), "resnet18")
    model = build_model("resnet18", 5, weights)
    assert model.conv1.weight.dtype == torch.float32
    torch.testing.assert_close(model.layer4[1].conv2.weight, weights.state_dict["layer4.1.conv2.weight"].float())
    assert model.fc.weight.shape == (5, 512)
    assert all(parameter.requires_grad for parameter in model.parameters())
    digest = hashlib.sha256((weights_folder_of_ours / "resnet18.pth").read_bytes()).hexdigest()
    assert weights.info.model_dump() == {
        "source": "file",
        "file": "resnet18.pth",
        "sha256": digest,
        "trained_on": None,
    }


def test_the_text_beside_weights_says_what_they_were_trained_on(weights_folder_of_ours):
    beside = weights_folder_of_ours / "resnet18.txt"
    beside.write_text("Imagenette, 160 px.\n")
    assert load_weights(str(weights_folder_of_ours), "resnet18").info.trained_on == "Imagenette, 160 px"
    for wrong in (b"", b"two\nlines", b"\xff", b"x" * 301):
        beside.write_bytes(wrong)
        with pytest.raises(UserError, match=r"resnet18\.txt"):
            load_weights(str(weights_folder_of_ours), "resnet18")
    beside.unlink()


def test_the_variable_stands_for_the_download(weights_folder_of_ours, monkeypatch):
    monkeypatch.setenv("FLOWERLIB_WEIGHTS", str(weights_folder_of_ours))
    assert load_weights("imagenet", "resnet18").info.source == "file"


def test_a_file_is_imagenets_by_its_hash_only(weights_folder_of_ours, monkeypatch):
    path = weights_folder_of_ours / "resnet18.pth"
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setattr(model_module, "_imagenet_url", lambda name: f"https://example.org/resnet18-{digest[:8]}.pth")
    assert load_weights(str(path), "resnet18").info.source == "imagenet"


def test_weights_of_another_network_are_refused(weights_folder_of_ours):
    weights = load_weights(str(weights_folder_of_ours / "resnet34.pth"), "resnet18")
    with pytest.raises(UserError, match="do not fit resnet18"):
        build_model("resnet18", 5, weights)


@pytest.mark.parametrize("content", [b"", b"not weights", {"state": 3}, [1, 2]])
def test_files_that_are_no_weights_are_refused(tmp_path, content):
    path = tmp_path / "resnet18.pth"
    path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
    with pytest.raises(UserError, match=r"resnet18\.pth"):
        load_weights(str(path), "resnet18")


@pytest.mark.parametrize("source", ["{folder}", "~nobody-here/weights", "x" * 300, "a\0b"])
def test_missing_weights_name_the_ways_out(tmp_path, source):
    with pytest.raises(UserError, match="--weights none"):
        load_weights(source.format(folder=tmp_path), "resnet18")


def test_a_failed_download_names_the_ways_out(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(model_module, "_imagenet_url", lambda name: "http://127.0.0.1:9/resnet18-00000000.pth")
    with pytest.raises(UserError, match=r"--set model=efficientnet_lite0.*--weights.*--weights none"):
        load_weights("imagenet", "resnet18")


def test_the_weights_at_hand_become_the_backbone(weights_folder):
    for name in ("resnet18", "resnet34"):
        weights = load_weights(str(weights_folder), name)
        model = build_model(name, 5, weights)
        torch.testing.assert_close(model.conv1.weight, weights.state_dict["conv1.weight"].float())


@pytest.mark.parametrize("name", ["resnet81", "fasterrcnn_resnet50_fpn"])
def test_only_torchvisions_classifiers_are_taken(name):
    with pytest.raises(UserError, match="must be a torchvision classifier or efficientnet_lite0"):
        load_weights("none", name)


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "efficientnet_lite0"])
def test_a_network_for_evaluation_computes_the_same(name):
    torch.manual_seed(0)
    model = new_network(name, 3)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):  # as if it had been trained
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 2)
            module.weight.data.uniform_(0.5, 1)
            module.bias.data.normal_(0, 0.3)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    fast = for_evaluation(model)
    pictures = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        expected = model.eval()(pictures)
        torch.testing.assert_close(fast(pictures), expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    normed = any(isinstance(module, nn.BatchNorm2d) for module in fast.modules())
    assert normed == (name == "efficientnet_lite0")
