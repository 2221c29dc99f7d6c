"""The training of the fine stage on a tiny codec."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from musicrl import codec, fitting, weights
from musicrl.codec import Codec
from musicrl.config import FineConfig
from musicrl.musiclm import fine, fine_train, tokens
from musicrl.musiclm.tokens import Codes

CONFIG = FineConfig(steps=12, batch_size=3, seconds=0.6, width=32, layers=1, heads=2, checkpoint_minutes=1e-9)


def corpus(clips: int = 4) -> Codes:
    generator = torch.Generator().manual_seed(0)

    def codes(*shape: int) -> Tensor:
        return torch.randint(0, 16, shape, generator=generator).short()

    lengths = torch.tensor([0, *(20 + i for i in range(clips))])
    frames = int(lengths.sum())
    return Codes(lengths.cumsum(0), codes(frames, 2), codes(2 * frames, 12))


@pytest.fixture(autouse=True)
def small_world(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    tiny = Codec(width=16, encoder_blocks=1, decoder_blocks=1, output_blocks=1, latent_dim=6, codebook_size=16).eval()
    torch.nn.init.normal_(tiny.quantizer.codebooks)
    real = weights.read
    parts = {"codec": ({"sha256": "c" * 64}, tiny.state_dict()), "semantic": ({"sha256": "s" * 64}, {})}
    monkeypatch.setattr(weights, "read", lambda name: parts.get(name) or real(name))
    monkeypatch.setattr(fine_train, "Corpus", lambda path: SimpleNamespace(digest=lambda: "d" * 64))
    monkeypatch.setattr(tokens, "codes", lambda folder, split: corpus())
    monkeypatch.setattr(codec, "load", lambda: tiny)


def final(run: Path) -> dict[str, Tensor]:
    return weights.read(run / "model")[1]


@pytest.mark.parametrize("levels", [1, 2])
def test_training_writes_a_stage_that_loads_and_says_what_it_measured(tmp_path: Path, levels: int) -> None:
    config = CONFIG.model_copy(update={"levels": levels, "steps": 60, "learning_rate": 0.01})
    figures = fine_train.train(config, tmp_path, tmp_path / "run", resume=False)
    stage = fine.load(tmp_path / "run" / "model")
    assert stage.shape.levels == levels
    semantic, acoustic = corpus().crops(torch.arange(2), 20, torch.zeros(2))
    assert stage.fill(semantic, acoustic[:, :levels]).shape == (2, 40, 6)
    # Fewer unknown levels, a smaller error; and what was learnt on these very clips is better than nothing.
    errors = [figures[f"latent error, true levels: {known}"] for known in (1, 2, 4)]
    assert errors == sorted(errors, reverse=True)
    assert figures[f"latent error, true levels: {levels}, the rest predicted"] < 0.95 * errors[levels - 1]


def test_resumed_training_equals_uninterrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fine_train.train(CONFIG, tmp_path, tmp_path / "whole", resume=False)
    expected = final(tmp_path / "whole")
    real = fine.FineStage.forward
    for name in ("resumed", "disturbed"):
        calls = 0

        def power_cut(*args: object, **kwargs: object) -> Tensor:
            nonlocal calls
            calls += 1
            if calls > 5:
                raise RuntimeError("power cut")
            return real(*args, **kwargs)  # type: ignore[arg-type]

        with monkeypatch.context() as patch:
            patch.setattr(fine.FineStage, "forward", power_cut)
            with pytest.raises(RuntimeError, match="power cut"):
                fine_train.train(CONFIG, tmp_path, tmp_path / name, resume=False)
    fine_train.train(CONFIG, tmp_path, tmp_path / "resumed", resume=True)
    resumed = final(tmp_path / "resumed")
    assert all(torch.equal(resumed[name], expected[name]) for name in expected)
    # Negative control: a run that forgot the optimizer's moments must not pass for the same.
    monkeypatch.setattr(fitting, "unpack", lambda *args, **kwargs: None)
    fine_train.train(CONFIG, tmp_path, tmp_path / "disturbed", resume=True)
    disturbed = final(tmp_path / "disturbed")
    assert any(not torch.equal(disturbed[name], expected[name]) for name in expected)
