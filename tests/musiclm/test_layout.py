from __future__ import annotations

import pytest
import torch

from musicrl.musiclm import layout


def test_a_frame_holds_semantic_codes_then_both_halves() -> None:
    semantic = torch.tensor([[[1, 2], [3, 4]]])
    acoustic = torch.tensor([[[10, 11, 12, 13]]])
    codes = layout.join(semantic, acoustic)
    assert codes.tolist() == [[[1, 2], [3, 4], [10, 12], [11, 13]]]


def test_two_levels_stand_together() -> None:
    semantic = torch.tensor([[[1], [3]]])
    acoustic = torch.tensor([[[10, 11], [20, 21]]])
    assert layout.join(semantic, acoustic).tolist() == [[[1], [3], [10], [20], [11], [21]]]


@pytest.mark.parametrize("levels", [1, 2, 3])
def test_split_undoes_join(levels: int) -> None:
    generator = torch.Generator().manual_seed(0)
    semantic = torch.randint(0, 9, (2, 2, 5), generator=generator)
    acoustic = torch.randint(0, 9, (2, levels, 10), generator=generator)
    back = layout.split(layout.join(semantic, acoustic))
    assert torch.equal(back[0], semantic)
    assert torch.equal(back[1], acoustic)
