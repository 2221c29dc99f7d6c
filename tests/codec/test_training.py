from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from musicrl import codec as room
from musicrl import weights
from musicrl.audio import io
from musicrl.codec.training import Training, train
from musicrl.config import CodecConfig
from musicrl.corpus.dataset import Corpus
from musicrl.errors import UserError
from musicrl.runs import open_run

CONFIG = CodecConfig(
    steps=6,
    autoencoder_steps=2,
    adversarial_steps=2,
    batch_size=2,
    seconds=0.2,
    width=16,
    encoder_blocks=1,
    decoder_blocks=1,
    output_blocks=1,
    latent_dim=8,
    codebook_size=8,
)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    rows: list[str] = []
    for i, split in enumerate(("train", "train", "validation")):
        time = torch.arange(24_000) / 24_000
        audio = 0.3 * torch.sin(2 * torch.pi * 220 * (i + 1) * time) * torch.exp(-3 * time)
        io.write(folder / f"{i}.flac", audio, 24_000)
        rows.append(json.dumps({"file_name": f"{i}.flac", "text": "a tone", "split": split}))
    (folder / "metadata.jsonl").write_text("\n".join(rows))
    return folder


def advance(training: Training, data: Corpus, steps: int) -> list[float]:
    return [training.advance(data)["loss"] for _ in range(steps)]


def same(a: Training, b: Training) -> bool:
    ours, theirs = a._tensors(), b._tensors()  # pyright: ignore[reportPrivateUsage]
    return all(torch.equal(t, theirs[group][name]) for group, named in ours.items() for name, t in named.items())


@pytest.mark.parametrize("at", [1, 3, 5])
def test_a_resumed_run_equals_the_uninterrupted_one_bit_for_bit(corpus: Path, tmp_path: Path, at: int) -> None:
    data = Corpus(corpus)
    whole = Training(CONFIG)
    losses = advance(whole, data, 6)
    first = Training(CONFIG)
    advance(first, data, at)
    with open_run(tmp_path / "run", "codec", CONFIG, resume=False) as run:
        first.save(run)
        checkpoint = run.latest()
    assert checkpoint is not None
    second = Training(CONFIG)
    second.restore(checkpoint)
    assert advance(second, data, 6 - at) == losses[at:]
    assert same(whole, second)

    # Negative control: without the optimizer's state the same weights go elsewhere.
    third = Training(CONFIG)
    third.restore(checkpoint)
    third.optimizer.state.clear()
    advance(third, data, 6 - at)
    assert not same(whole, third)


def test_training_leaves_weights_that_load(corpus: Path, tmp_path: Path) -> None:
    trained = train(CONFIG, corpus, tmp_path / "run")
    loaded = room.load(tmp_path / "run/model")
    audio = 0.1 * torch.randn(1, 4800, generator=torch.Generator().manual_seed(0))
    codes = loaded.encode(audio)
    assert torch.equal(codes, trained.encode(audio))
    assert torch.equal(loaded.decode(codes), trained.decode(codes))
    card = (tmp_path / "run/model" / weights.CARD).read_text()
    assert "log-mel L1, 12 of 12 levels" in card and "steps = 6" in card
    rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert "critic" not in rows[3] and "critic" in rows[4]
    with pytest.raises(UserError, match="--resume"):
        train(CONFIG, corpus, tmp_path / "run")


def test_a_step_with_nan_is_skipped_and_counted(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = Corpus(corpus)
    training = Training(CONFIG)
    advance(training, data, 1)
    before = {name: p.detach().clone() for name, p in training.codec.named_parameters()}
    with monkeypatch.context() as patch:
        patch.setattr(data, "crops", lambda *_: (torch.full((2, 4800), float("nan")), []))
        training.advance(data)
    assert training.skipped == 1 and training.step == 2
    assert all(torch.equal(p, before[name]) for name, p in training.codec.named_parameters())
    advance(training, data, 1)
    assert training.skipped == 1
