from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from musicrl import runs
from musicrl.audio import io
from musicrl.config import QualityConfig
from musicrl.errors import UserError
from musicrl.rewards import quality
from musicrl.rewards.degrade import degrade
from musicrl.rewards.fitting import held_out
from musicrl.rewards.generations import from_audio
from musicrl.rewards.protocol import Generations, Reward
from musicrl.rewards.quality import Quality, QualityModel, train

RATE = 24_000


def tune(seed: int, seconds: float = 1.0) -> torch.Tensor:
    """A chord of decaying tones."""
    generator = torch.Generator().manual_seed(seed)
    time = torch.arange(int(seconds * RATE)) / RATE
    pitches = 220.0 * 2 ** (torch.randint(0, 24, (3,), generator=generator) / 12)
    tones = [torch.sin(2 * torch.pi * f * h * time) / h for f in pitches.tolist() for h in (1, 2, 3, 5)]
    return 0.1 * torch.stack(tones).sum(dim=0) * torch.exp(-2 * (time % 0.5))


@pytest.fixture(scope="module")
def ratings(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Tunes damaged by noise or clipping, rated 5 − 4 · severity, give or take a point, by three raters."""
    folder = tmp_path_factory.mktemp("clips")
    generator = torch.Generator().manual_seed(0)
    rows: list[dict[str, Any]] = []
    for i in range(80):
        severity = float(torch.rand((), generator=generator))
        clip = degrade(tune(i // 2), RATE, ("noise", "clipping")[i % 2], severity, seed=i)
        io.write(folder / f"{i}.wav", clip, RATE)
        for error in torch.randint(-1, 2, (3,), generator=generator).tolist():
            value = min(5, max(1, round(5 - 4 * severity) + error))
            rows.append(
                {"audio": str(folder / f"{i}.wav"), "value": value, "prompt": f"{i // 2}", "rater_kind": "simulated"}
            )
    return rows


def settings(**changes: Any) -> QualityConfig:
    defaults: dict[str, Any] = {"steps": 8, "batch_size": 8, "seconds": 0.8, "width": 16, "blocks": 1, "eval_every": 4}
    return QualityConfig(**(defaults | changes))


def test_planted_quality_is_recovered(tmp_path: Path, ratings: list[dict[str, Any]]):
    config = settings(steps=120, batch_size=16, width=32, blocks=2, learning_rate=3e-3, eval_every=20, validation=0.25)
    fitted = train(config, ratings, tmp_path / "run", False)
    assert fitted.held_out["spearman"] > 0.8
    assert 0.8 < fitted.held_out["ceiling"] <= 1.0
    reward = quality.load(tmp_path / "run" / "model")
    assert isinstance(reward, Reward)
    model = tmp_path / "run" / "model"
    assert json.loads((model / "config.json").read_text())["ratings"] == {"person": 0, "simulated": 240}
    assert "Data: 240 simulated ratings, of 80 clips" in (model / "README.md").read_text()
    fresh = tune(1000)
    clips = torch.stack([degrade(fresh, RATE, "noise", severity, 0) for severity in (0.0, 0.5, 1.0)])
    scores = reward(from_audio(("",) * 3, clips, RATE))
    assert scores.min() >= 0.0 and scores.max() <= 1.0
    assert scores[0] > scores[1] > scores[2]


def rows(path: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]


def run_in_two_parts(path: Path, config: QualityConfig, given: list[dict[str, Any]], patch: Any) -> None:
    crop, crops = quality._crop, iter(range(10_000))

    def crop_and_press(*args: Any) -> torch.Tensor:
        if next(crops) == 5 * config.batch_size:
            os.kill(os.getpid(), signal.SIGINT)
        return crop(*args)

    with patch.context() as during:
        during.setattr(quality, "_crop", crop_and_press)
        with pytest.raises(UserError, match="interrupted at step 6"):
            train(config, given, path, False)
    train(config, given, path, True)


def test_resumed_equals_uninterrupted_bit_for_bit(
    tmp_path: Path, ratings: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
):
    train(settings(), ratings, tmp_path / "whole", False)
    run_in_two_parts(tmp_path / "parts", settings(), ratings, monkeypatch)
    assert rows(tmp_path / "parts") == rows(tmp_path / "whole")
    model = "model/model.safetensors"
    assert (tmp_path / "parts" / model).read_bytes() == (tmp_path / "whole" / model).read_bytes()


def test_resuming_without_the_generator_would_differ(
    tmp_path: Path, ratings: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
):
    """Negative control of the test above."""
    train(settings(), ratings, tmp_path / "whole", False)
    unpack = runs.unpack
    monkeypatch.setattr(
        "musicrl.rewards.fitting.runs.unpack",
        lambda tensors, state, optimizer, generators: unpack(tensors, state, optimizer=optimizer),
    )
    run_in_two_parts(tmp_path / "parts", settings(), ratings, monkeypatch)
    assert rows(tmp_path / "parts") != rows(tmp_path / "whole")


def test_clips_of_one_prompt_are_held_out_together(ratings: list[dict[str, Any]]):
    shares = [held_out(str(i), 0.25, 0) for i in range(2000)]
    assert 0.22 < sum(shares) / 2000 < 0.28
    assert shares != [held_out(str(i), 0.25, 1) for i in range(2000)]
    assert {out for out, i in zip(shares, range(2000), strict=True) if i == 7} == {held_out("7", 0.25, 0)}


def test_score_depends_on_the_clip_alone():
    torch.manual_seed(0)
    reward = Quality(QualityModel(16, 2))
    clips = torch.stack([tune(i) for i in range(18)])
    together = reward(Generations(("",) * 18, None, clips, RATE))
    assert together.shape == (18,) and ((together >= 0) & (together <= 1)).all()
    alone = reward(Generations(("",), None, clips[17:], RATE))
    torch.testing.assert_close(alone[0], together[17])


def test_other_sample_rates_are_resampled():
    torch.manual_seed(0)
    reward = Quality(QualityModel(16, 1))
    clip = tune(0)[None]
    low = io.resample(clip, RATE, 48_000)
    expected = reward(Generations(("",), None, clip, RATE))
    assert reward(Generations(("",), None, low, 48_000)).item() == pytest.approx(expected.item(), abs=0.01)


def test_default_model_is_small():
    config = QualityConfig()
    count = sum(p.numel() for p in QualityModel(config.width, config.blocks).parameters())
    assert 500_000 < count < 1_000_000


def test_too_few_clips_and_missing_audio(tmp_path: Path, ratings: list[dict[str, Any]]):
    with pytest.raises(UserError, match="rate more"):
        train(settings(), ratings[:3], tmp_path / "few", False)
    missing = [{**row, "audio": row["audio"] + ".gone"} for row in ratings]
    with pytest.raises(UserError, match="cannot read audio"):
        train(settings(), missing, tmp_path / "missing", False)
