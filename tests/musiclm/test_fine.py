from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from musicrl import weights
from musicrl.errors import UserError
from musicrl.musiclm import fine, fine_train
from musicrl.musiclm.fine import PASSES, UNKNOWN, FineStage, windows


def music(frames: int, levels: int = 1) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(frames)
    semantic = torch.randint(0, 16, (2, 2, frames // 2), generator=generator)
    return semantic, torch.randint(0, 16, (2, levels, frames), generator=generator)


@pytest.mark.parametrize("levels", [1, 2])
@pytest.mark.parametrize("frames", [2, 20, 22, 58])
def test_given_levels_stay_and_the_rest_is_filled(fine_stage: FineStage, frames: int, levels: int) -> None:
    semantic, acoustic = music(frames, levels)
    codes = fine_stage.fill(semantic, acoustic)
    assert codes.shape == (2, 12, frames)
    assert torch.equal(codes[:, :levels], acoustic)
    assert int(codes.min()) >= 0
    assert int(codes.max()) < 16


def test_the_same_codes_give_the_same_levels(fine_stage: FineStage) -> None:
    semantic, acoustic = music(20)
    codes = fine_stage.fill(semantic, acoustic)
    assert torch.equal(fine_stage.fill(semantic, acoustic), codes)
    assert torch.equal(fine_stage.fill(semantic[1:], acoustic[1:]), codes[1:])
    assert not torch.equal(fine_stage.fill(semantic.roll(1, 0), acoustic)[:, 1:], codes[:, 1:])


def test_eight_passes_give_every_level_once() -> None:
    assert [level for levels in PASSES for level in levels] == list(range(1, 12))
    assert len(PASSES) + 1 <= 8


def test_levels_above_the_one_asked_for_are_not_read(fine_stage: FineStage) -> None:
    semantic, acoustic = music(10, 12)
    level = torch.tensor([3, 1])
    known = torch.full((2, 10), UNKNOWN)
    states = fine_stage.states(semantic, acoustic, level, known)
    higher = acoustic.clone()
    higher[0, 3:] = (higher[0, 3:] + 1) % 16
    higher[1, 1:] = (higher[1, 1:] + 1) % 16
    assert torch.equal(fine_stage.states(semantic, higher, level, known), states)
    lower = acoustic.clone()
    lower[0, 2] = (lower[0, 2] + 1) % 16
    assert not torch.allclose(fine_stage.states(semantic, lower, level, known)[0], states[0])


def test_known_codes_of_the_level_are_read(fine_stage: FineStage) -> None:
    semantic, acoustic = music(10, 12)
    level, known = torch.tensor([1, 1]), torch.full((2, 10), UNKNOWN)
    states = fine_stage.states(semantic, acoustic, level, known)
    known[0, 4] = 3
    other = fine_stage.states(semantic, acoustic, level, known)
    assert not torch.allclose(other[0], states[0])
    assert torch.equal(other[1], states[1])


@given(st.integers(21, 400))
def test_windows_tile_a_clip(frames: int) -> None:
    cut = windows(frames, 20, 2)
    assert [first for _, first, _ in cut] == [0, *(last for _, _, last in cut[:-1])]
    assert cut[-1][2] == frames
    for start, first, last in cut:
        assert 0 <= start <= first < last <= start + 20 <= frames
        assert first == 0 or first - start >= 2
        assert last == frames or start + 20 - last >= 2


def test_mask_hides_whole_levels_but_the_first() -> None:
    acoustic = torch.randint(0, 16, (3000, 12, 30), generator=torch.Generator().manual_seed(0))
    level, known = fine_train.mask(acoustic, torch.Generator().manual_seed(1))
    assert set(level.tolist()) == {levels[0] for levels in PASSES}
    hidden = (known == UNKNOWN).float().mean(1)
    assert bool((hidden[level != 1] == 1).all())
    first = hidden[level == 1]
    # Half are hidden whole on purpose; of the others, few by chance.
    assert 0.45 < float((first == 1).float().mean()) < 0.68
    assert float(first.min()) < 0.2
    shown = known != UNKNOWN
    own = acoustic[torch.arange(3000), level]
    assert torch.equal(known[shown], own[shown])


def test_loss_falls_on_what_it_learns(fine_stage: FineStage) -> None:
    semantic, acoustic = music(20, 12)
    level, known = torch.tensor([1, 4]), torch.full((2, 20), UNKNOWN)
    optimizer = torch.optim.Adam(fine_stage.parameters(), 0.01)
    losses: list[float] = []
    for _ in range(30):
        loss, parts = fine_train.masked_loss(fine_stage, semantic, acoustic, level, known)
        assert loss.item() == pytest.approx(sum(parts.values()), rel=1e-5)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_save_and_load(fine_stage: FineStage, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    fine_stage.bfloat16().float()
    real = weights.read
    codec = ({"sha256": "c" * 64}, {"quantizer.codebooks": fine_stage.codebooks.clone()})
    monkeypatch.setattr(weights, "read", lambda name: codec if name == "codec" else real(name))
    fine.save(fine_stage, tmp_path / "fine", "# card", codec="c" * 64)
    semantic, acoustic = music(20)
    assert torch.equal(fine.load(tmp_path / "fine").fill(semantic, acoustic), fine_stage.fill(semantic, acoustic))
    fine.save(fine_stage, tmp_path / "other", "# card", codec="d" * 64)
    with pytest.raises(UserError, match="another codec"):
        fine.load(tmp_path / "other")
