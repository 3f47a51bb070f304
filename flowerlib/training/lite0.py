"""EfficientNet-Lite0, whose ImageNet weights come as a Python package: no download at run time.

Source: Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks" (2019), and the Lite
variants of TensorFlow's repository (2020): no squeeze-and-excitation, ReLU6, TensorFlow's padding. Parameters bear
timm's names (``tf_efficientnet_lite0``), so that its users can load a checkpoint there. timm itself is not needed: it
would bring 39 MB of packages, an access to a model hub among them, for these lines.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping

import torch
from torch import nn
from torch.nn.functional import pad

# of each stage: blocks, kernel size, stride of the first block, expansion, channels
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
STEM, FEATURES = 32, 1280  # channels

WEIGHTS_HASH = "579344248a93e230"  # how the SHA-256 of the package's file begins


class EfficientNetLite0(nn.Sequential):
    """The network, with random weights from torch's global generator: pictures (n, 3, size, size) to logits."""

    def __init__(self, num_classes: int = 1000):
        stages, channels = [], STEM
        for blocks, kernel, stride, expansion, width in STAGES:
            first = Block(channels, width, kernel, stride, expansion)
            others = [Block(width, width, kernel, 1, expansion) for _ in range(blocks - 1)]
            stages.append(nn.Sequential(first, *others))
            channels = width
        layers = {
            "conv_stem": SameConv2d(3, STEM, 3, stride=2),
            "bn1": _norm(STEM),
            "act1": nn.ReLU6(inplace=True),
            "blocks": nn.Sequential(*stages),
            "conv_head": SameConv2d(channels, FEATURES, 1),
            "bn2": _norm(FEATURES),
            "act2": nn.ReLU6(inplace=True),
            "pool": nn.AdaptiveAvgPool2d(1),
            "flatten": nn.Flatten(),
            "classifier": nn.Linear(FEATURES, num_classes),
        }
        super().__init__(OrderedDict(layers))


class SameConv2d(nn.Conv2d):
    """A convolution without bias whose output is 1 / stride as large as its input, as TensorFlow pads it.

    Where the padding is odd, the extra row and column are on the right and below: PyTorch's own padding, equal on
    both sides, would shift every map by a pixel.

    In mixed precision on a CPU, a convolution by channel trains in float32: in bfloat16 its gradient takes so long
    there that an epoch took 1.7 times the time. Evaluation, without gradients, is faster in bfloat16 and keeps it.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1):
        padding = kernel // 2 if stride == 1 else 0  # with a stride, `forward` pads
        super().__init__(inputs, outputs, kernel, stride, padding, groups=groups, bias=False)
        fan_out = kernel**2 * outputs // groups
        nn.init.normal_(self.weight, std=math.sqrt(2 / fan_out))

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Maps (n, channels, height, width), padded and convolved."""
        (kernel, _), (stride, _) = self.kernel_size, self.stride
        if stride > 1:
            missing = [max((math.ceil(side / stride) - 1) * stride + kernel - side, 0) for side in maps.shape[:1:-1]]
            maps = pad(maps, [edge for total in missing for edge in (total // 2, total - total // 2)])
        if self.groups > 1 and maps.requires_grad and torch.is_autocast_enabled("cpu"):
            with torch.autocast("cpu", enabled=False):
                return super().forward(maps.float()).to(maps.dtype)
        return super().forward(maps)


class Block(nn.Sequential):
    """An inverted residual block: expanded by a 1 × 1 convolution, filtered by channel, projected back."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int):
        width = inputs * expansion
        expand = [("conv_pw", SameConv2d(inputs, width, 1))] if expansion > 1 else []
        convolutions = [
            *expand,
            ("conv_dw", SameConv2d(width, width, kernel, stride, groups=width)),
            ("conv_pwl" if expand else "conv_pw", SameConv2d(width, outputs, 1)),
        ]
        layers = OrderedDict()
        for number, (name, convolution) in enumerate(convolutions, start=1):
            layers |= {name: convolution, f"bn{number}": _norm(convolution.out_channels)}
            if number < len(convolutions):
                layers[f"act{number}"] = nn.ReLU6(inplace=True)
        super().__init__(layers)
        self.has_skip = inputs == outputs and stride == 1

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Maps (n, inputs, height, width); the input is added to the output where the shapes agree."""
        return maps + super().forward(maps) if self.has_skip else super().forward(maps)


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3)


def rename(state_dict: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Give the package's tensors our names; they come in the same order.

    A state_dict with other names, or another number of tensors, is returned as it is.
    """
    with torch.device("meta"):
        names = EfficientNetLite0().state_dict().keys()
    if "_conv_stem.weight" not in state_dict or len(state_dict) != len(names):
        return dict(state_dict)
    return dict(zip(names, state_dict.values(), strict=True))
