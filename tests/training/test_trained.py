"""Where a network looks."""

import numpy as np
import pytest
import torch
from torch import nn

from flowerlib.runs import InputInfo
from flowerlib.training.trained import grad_cam

BRIGHT = np.random.default_rng(0).integers(150, 256, size=(2, 32, 32, 3), dtype=np.uint8)


class Quadrants(nn.Module):
    """A channel for each quadrant of a picture, which holds its brightness there; class k is for channel k."""

    def __init__(self, sign=1.0):
        super().__init__()
        self.brightness = nn.Conv2d(3, 4, kernel_size=4, stride=4, bias=False)
        nn.init.ones_(self.brightness.weight)
        self.features = nn.Identity()
        self.sign = sign

    def forward(self, pictures):
        maps = self.brightness(pictures)
        masks = torch.zeros_like(maps)
        masks[:, 0, :4, :4] = masks[:, 1, :4, 4:] = masks[:, 2, 4:, :4] = masks[:, 3, 4:, 4:] = 1
        return self.sign * self.features(maps * masks).mean(dim=(2, 3))


@pytest.mark.parametrize("quadrant", range(4))
def test_the_heat_lies_where_the_network_looks(quadrant):
    network = Quadrants().eval()
    maps = grad_cam(network, network.features, BRIGHT, [quadrant, 3 - quadrant], InputInfo())
    assert maps.shape == (2, 32, 32)
    assert maps.max(axis=(1, 2)).tolist() == [1, 1]
    assert maps.min() >= 0
    for heat, place in zip(maps, [quadrant, 3 - quadrant], strict=True):
        top, left = 16 * (place // 2), 16 * (place % 2)
        inside = heat[top : top + 16, left : left + 16]
        assert inside.sum() > 0.85 * heat.sum()  # the rest is the seam of the enlarged map
        assert inside[4:-4, 4:-4].min() > 0.3


def test_there_is_no_heat_where_nothing_speaks_for_the_class():
    network = Quadrants(sign=-1.0).eval()
    maps = grad_cam(network, network.features, BRIGHT[:1], [0], InputInfo())
    assert (maps == 0).all()
