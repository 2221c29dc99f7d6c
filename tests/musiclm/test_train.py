from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from musicrl import fitting, musiclm, weights
from musicrl.config import MusicLMConfig
from musicrl.musiclm import tokens, train
from musicrl.musiclm.average import Averaged
from musicrl.musiclm.model import ABSENT, MusicLM, Shape
from musicrl.musiclm.tokens import Codes, Conditions
from musicrl.runs import open_run

CONFIG = MusicLMConfig(
    steps=12,
    batch_size=3,
    seconds=0.6,
    width=32,
    layers=1,
    heads=2,
    depth_width=16,
    depth_layers=1,
    depth_heads=1,
    validate_every=6,
    checkpoint_minutes=1e-9,
)


def corpus(clips: int = 6) -> Codes:
    generator = torch.Generator().manual_seed(0)

    def codes(*shape: int) -> Tensor:
        return torch.randint(0, 1024, shape, generator=generator).short()

    lengths = torch.tensor([0, *(20 + i for i in range(clips))])
    frames = int(lengths.sum())
    return Codes(lengths.cumsum(0), codes(frames, 2), codes(2 * frames, 12))


def said(clips: int = 6) -> Conditions:
    generator = torch.Generator().manual_seed(1)
    audio, captions = (torch.randint(0, 8, shape, generator=generator).short() for shape in ((clips, 3), (clips, 2, 3)))
    return Conditions(audio, captions, captions + 1)


@pytest.fixture(autouse=True)
def small_world(monkeypatch: pytest.MonkeyPatch) -> None:
    books = torch.randn(3, 9, 10, generator=torch.Generator().manual_seed(2)).bfloat16().float()
    real = weights.read
    parts = {
        "mulan": {"codebooks": books},
        "semantic": {"centroids": torch.randn(2, 1024, 5)},
        "codec": {"quantizer.codebooks": torch.randn(12, 1024, 6)},
    }
    monkeypatch.setattr(
        weights, "read", lambda name: ({"sha256": "m" * 64}, parts[name]) if name in parts else real(name)
    )
    monkeypatch.setattr(train, "Corpus", lambda path: SimpleNamespace(digest=lambda: "c" * 64))
    monkeypatch.setattr(tokens, "codes", lambda folder, split: corpus())
    monkeypatch.setattr(tokens, "conditions", lambda folder, split: said())


def test_training_writes_a_model_that_loads(tmp_path: Path) -> None:
    figures = train.train(CONFIG, tmp_path, tmp_path / "run", resume=False)
    model = musiclm.load(tmp_path / "run" / "model")
    assert model.shape.max_frames == 15
    again = train.validate(model, corpus(), said(), 1)
    assert again["nats shuffled"] == pytest.approx(figures["nats shuffled"], abs=1e-6)
    card = (tmp_path / "run" / "model" / "README.md").read_text()
    assert "nats shuffled, codebook 3" in card


def test_resumed_training_equals_uninterrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def final(folder: Path) -> dict[str, Tensor]:
        with open_run(folder, "musiclm", CONFIG, resume=True) as run:
            checkpoint = run.latest()
        assert checkpoint is not None
        assert checkpoint.step == 12
        return checkpoint.tensors

    def stop_after(count: int, of: Callable[..., Tensor]) -> Callable[..., Tensor]:
        calls = 0

        def counted(*args: Any, **kwargs: Any) -> Tensor:
            nonlocal calls
            calls += 1
            if calls > count:
                raise RuntimeError("power cut")
            return of(*args, **kwargs)

        return counted

    train.train(CONFIG, tmp_path, tmp_path / "whole", resume=False)
    expected = final(tmp_path / "whole")
    for name in ("resumed", "disturbed"):
        with monkeypatch.context() as patch:
            patch.setattr(train, "conditions", stop_after(5, train.conditions))
            with pytest.raises(RuntimeError, match="power cut"):
                train.train(CONFIG, tmp_path, tmp_path / name, resume=False)
    train.train(CONFIG, tmp_path, tmp_path / "resumed", resume=True)
    resumed = final(tmp_path / "resumed")
    assert resumed.keys() == expected.keys()
    assert all(torch.equal(resumed[name], expected[name]) for name in expected)

    # Negative control: a resumed run that forgot the optimizer's moments must not pass for the same.
    monkeypatch.setattr(fitting, "unpack", lambda *args, **kwargs: None)
    train.train(CONFIG, tmp_path, tmp_path / "disturbed", resume=True)
    disturbed = final(tmp_path / "disturbed")
    assert any(not torch.equal(disturbed[name], expected[name]) for name in expected)


def test_codes_that_sound_alike_start_alike() -> None:
    torch.manual_seed(0)
    shape = Shape(width=96, layers=1, heads=2, depth_width=80, depth_layers=1, depth_heads=1)
    model = MusicLM(shape)
    vectors = [torch.randn(1024, d) for d in (5, 5, 6, 6)]
    vectors[1][7] = vectors[1][3] + 0.01
    train.start_from(model, vectors)
    tables = (model.trunk.embed.weight[1024:2048], model.depth.embed.weight[1024:2048], model.depth.heads[1].T)
    for table, spread in zip(tables, (0.1, 0.1, 0.02), strict=True):
        assert table.detach().std().item() == pytest.approx(spread, rel=0.25)
        near, far = ((table[7] - table[other]).detach().norm().item() for other in (3, 4))
        assert near < 0.1 * far


def test_gradients_of_a_fresh_model_are_tame() -> None:
    torch.manual_seed(0)
    model = MusicLM(Shape())
    codes = torch.randint(0, 1024, (4, 4, 40), generator=torch.Generator().manual_seed(0))
    # The last row has no condition at all: its first frame once started at 0, and its gradient at infinity.
    condition = torch.zeros(4, 12, dtype=torch.int64)
    condition[-1] = ABSENT
    train.nats(model, codes, condition, 1.0, torch.Generator()).mean().backward()
    norms = torch.stack([p.grad.norm() for p in model.parameters() if p.grad is not None])
    assert float(norms.norm()) < 10


def test_nats_of_some_frames_estimate_those_of_all() -> None:
    torch.manual_seed(0)
    shape = Shape(width=32, layers=1, heads=2, depth_width=16, depth_layers=1, depth_heads=1, condition_levels=3)
    model = MusicLM(shape).eval()
    codes = torch.randint(0, 1024, (8, 4, 50), generator=torch.Generator().manual_seed(0))
    condition = torch.zeros(8, 3, dtype=torch.int64)
    with torch.no_grad():
        model.depth.heads.mul_(20)
        every = train.nats(model, codes, condition, 1.0, torch.Generator())
        logps = model(codes, condition).log_softmax(-1).gather(-1, codes[..., None])
        some = train.nats(model, codes, condition, 0.5, torch.Generator().manual_seed(0))
    assert torch.allclose(every, -logps.mean((0, 2, 3)), atol=1e-4)
    assert not torch.equal(some, every)
    assert torch.allclose(some, every, rtol=0.03)


def test_conditions_are_mixed_as_told() -> None:
    data = said()
    clips = torch.arange(6).repeat(1000)
    found = train.conditions(data, clips, torch.Generator().manual_seed(0))
    absent = (found == ABSENT).sum(1)
    assert float((absent == 3).float().mean()) == pytest.approx(0.1, abs=0.02)
    assert float(((absent > 0) & (absent < 3)).float().mean()) == pytest.approx(0.225, abs=0.03)
    whole = found[absent == 0]
    own = clips[absent == 0]
    sound = (whole == data.audio[own]).all(1)
    caption = (whole[:, None] == data.captions[own]).all(2).any(1)
    prompt = (whole[:, None] == data.prompts[own]).all(2).any(1)
    assert bool((sound | caption | prompt).all())
    assert float(sound.float().mean()) == pytest.approx(0.5, abs=0.05)
    assert float(prompt.float().mean()) == pytest.approx(0.17, abs=0.05)


def test_crops_lie_within_their_clip() -> None:
    data = corpus()
    clips, semantic, acoustic = data.draw(200, 15, 9, torch.Generator().manual_seed(0))
    assert 9 <= semantic.shape[2] <= 15
    assert acoustic.shape == (200, 12, 2 * semantic.shape[2])
    for clip, one, fine in zip(clips.tolist(), semantic, acoustic, strict=True):
        first, last = int(data.starts[clip]), int(data.starts[clip + 1])
        own = data.semantic[first:last].T
        places = [p for p in range(own.shape[1] - one.shape[1] + 1) if torch.equal(own[:, p : p + one.shape[1]], one)]
        assert len(places) == 1
        start = 2 * (first + places[0])
        assert torch.equal(data.acoustic[start : start + fine.shape[1]].T.long(), fine)


def test_average_follows_the_model() -> None:
    student = Averaged(torch.nn.Linear(1, 1, bias=False), decay=0.5)
    start = float(student.average.weight.detach())
    with torch.no_grad():
        student.model.weight.fill_(start + 1)
    student.update(7)
    assert float(student.average.weight) == start
    student.update(8)
    decay = 0.5**8
    assert float(student.average.weight) == pytest.approx(start * decay + (start + 1) * (1 - decay))
    assert not student.average.weight.requires_grad
