"""The priors of a head's levels: where they lie, in which order, and what is said of each preset's."""

import re

import pytest
import torch

from simota_triton import SimOTAConfig, grid_priors


def test_levels_follow_each_other_and_go_row_by_row():
    priors = grid_priors((16, 24), (8, 16))
    assert priors.dtype == torch.float32
    assert priors.tolist() == [
        [0, 0, 8, 8], [8, 0, 8, 8], [16, 0, 8, 8],
        [0, 8, 8, 8], [8, 8, 8, 8], [16, 8, 8, 8],
        [0, 0, 16, 16], [16, 0, 16, 16],
    ]  # fmt: skip


@pytest.mark.parametrize("offset", [0.0, 0.5, 1.0])
def test_the_offset_moves_points_by_their_stride(offset):
    moved = grid_priors(64, offset=offset) - grid_priors(64)
    assert torch.equal(moved[:, :2], offset * grid_priors(64)[:, 2:])
    assert not bool(moved[:, 2:].any())


def test_it_names_the_offset_of_every_preset():
    table = re.search(
        r"0\.0, the upper left corner(.*)0\.5, the centre(.*)\n\n *If ", grid_priors.__doc__, re.S
    )
    told = {
        name: offset for offset, names in zip((0.0, 0.5), table.groups(), strict=True)
        for name in re.findall(r"\w+", names)
    }  # fmt: skip
    assert told == {name: SimOTAConfig.from_preset(name).prior_offset for name in SimOTAConfig.presets()}
