from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from musicrl import weights
from musicrl.errors import UserError
from musicrl.musiclm import fine
from musicrl.musiclm.fine import FineShape, FineStage, latents, windows


def music(frames: int, levels: int = 1) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(frames)
    semantic = torch.randint(0, 16, (2, 2, frames // 2), generator=generator)
    return semantic, torch.randint(0, 16, (2, levels, frames), generator=generator)


def test_latents_are_the_sum_of_code_vectors() -> None:
    codebooks = torch.tensor([[[1.0, 0.0], [2.0, 0.0]], [[0.0, 10.0], [0.0, 20.0]], [[9.0, 9.0], [9.0, 9.0]]])
    codes = torch.tensor([[[0, 1], [1, 1]]])
    assert torch.equal(latents(codebooks, codes), torch.tensor([[[1.0, 20.0], [2.0, 20.0]]]))


@pytest.mark.parametrize("frames", [2, 20, 22, 58])
def test_every_frame_of_a_clip_of_any_length_is_filled(fine_stage: FineStage, frames: int) -> None:
    filled = fine_stage.fill(*music(frames))
    assert filled.shape == (2, frames, 6)
    assert bool(torch.isfinite(filled).all())


def test_a_window_is_filled_as_it_would_be_alone(fine_stage: FineStage) -> None:
    semantic, acoustic = music(58)
    alone = fine_stage.fill(semantic[..., :10], acoustic[..., :20])
    # Window of 20 frames, margin of 2: the first 18 frames come from the first window.
    assert torch.equal(fine_stage.fill(semantic, acoustic)[:, :18], alone[:, :18])


def test_the_same_codes_give_the_same_latents(fine_stage: FineStage) -> None:
    semantic, acoustic = music(20)
    filled = fine_stage.fill(semantic, acoustic)
    assert torch.equal(fine_stage.fill(semantic, acoustic), filled)
    torch.testing.assert_close(fine_stage.fill(semantic[1:], acoustic[1:]), filled[1:])
    assert not torch.allclose(fine_stage.fill(semantic.roll(1, 0), acoustic), filled)
    assert not torch.allclose(fine_stage.fill(semantic, acoustic.roll(1, 0)), filled)


def test_a_fresh_stage_adds_nothing_to_what_is_given() -> None:
    stage = FineStage(FineShape(width=32, layers=1, heads=2, levels=2, codebook_size=16, latent_width=6))
    semantic, acoustic = music(20, levels=2)
    assert torch.equal(stage.fill(semantic, acoustic), latents(stage.codebooks, acoustic))


def test_another_number_of_levels_is_refused(fine_stage: FineStage) -> None:
    with pytest.raises(UserError, match="levels=2"):
        fine_stage.fill(*music(20, levels=2))


def test_hidden_frames_are_not_read(fine_stage: FineStage) -> None:
    semantic, acoustic = music(20)
    shown = torch.ones(2, 20, dtype=torch.bool)
    assert torch.equal(fine_stage(semantic, acoustic, shown), fine_stage(semantic, acoustic))
    shown[0, 4] = False
    hidden = fine_stage(semantic, acoustic, shown)
    other = acoustic.clone()
    other[0, 0, 4] = (other[0, 0, 4] + 1) % 16
    assert torch.equal(fine_stage(semantic, other, shown), hidden)
    assert not torch.allclose(fine_stage(semantic, other), fine_stage(semantic, acoustic))


@given(st.integers(21, 400))
def test_windows_tile_a_clip(frames: int) -> None:
    cut = windows(frames, 20, 2)
    assert [first for _, first, _ in cut] == [0, *(last for _, _, last in cut[:-1])]
    assert cut[-1][2] == frames
    for start, first, last in cut:
        assert 0 <= start <= first < last <= start + 20 <= frames
        assert first == 0 or first - start >= 2
        assert last == frames or start + 20 - last >= 2


def test_loss_falls_on_what_it_learns(fine_stage: FineStage) -> None:
    semantic, acoustic = music(20)
    wanted = torch.randn(2, 20, 6, generator=torch.Generator().manual_seed(3))
    optimizer = torch.optim.Adam(fine_stage.parameters(), 0.01)
    losses: list[float] = []
    for _ in range(40):
        loss = (fine_stage(semantic, acoustic) - wanted).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]


def test_save_and_load(fine_stage: FineStage, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    fine_stage.bfloat16().float()
    real = weights.read
    parts = {
        # The codec has more levels than the stage is given.
        "codec": ({"sha256": "c" * 64}, {"quantizer.codebooks": fine_stage.codebooks.repeat(12, 1, 1)}),
        "semantic": ({"sha256": "s" * 64}, {}),
    }
    monkeypatch.setattr(weights, "read", lambda name: parts.get(name) or real(name))
    trained_on = {"codec": "c" * 64, "semantic": "s" * 64}
    fine.save(fine_stage, tmp_path / "fine", "# card", trained_on=trained_on)
    semantic, acoustic = music(20)
    assert torch.equal(fine.load(tmp_path / "fine").fill(semantic, acoustic), fine_stage.fill(semantic, acoustic))
    for part in parts:
        fine.save(fine_stage, tmp_path / "other", "# card", trained_on=trained_on | {part: "d" * 64})
        with pytest.raises(UserError, match=f"another {part}"):
            fine.load(tmp_path / "other")
