from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from musicrl.errors import UserError
from musicrl.mulan.measure import retrieval
from musicrl.mulan.model import MuLan, window_starts
from musicrl.mulan.train import true_of


@pytest.fixture(scope="module")
def tiny() -> MuLan:
    torch.manual_seed(0)
    model = MuLan(width=32, depth=1, heads=2, text_width=32, dim=16, levels=3, codebook_size=8).eval()
    model.codebooks.normal_(std=0.3)
    return model


@pytest.mark.parametrize(
    ("seconds", "starts"),
    [
        (4, [0]),
        (10, [0]),
        (10.24, [0, 6]),
        (15, [0, 125]),
        (20, [0, 125, 250]),
        (22, [0, 125, 250, 300]),
    ],
)
def test_windows_of_ten_seconds_every_five_the_last_at_the_end(seconds: float, starts: list[int]) -> None:
    assert window_starts(int(seconds * 25)) == starts


def test_embeddings_have_unit_norm_and_repeat(tiny: MuLan) -> None:
    audio = torch.randn(2, 24_000 * 12) * 0.1
    found = tiny.embed_audio(audio)
    assert found.shape == (2, 16)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(2))
    assert torch.equal(found, tiny.embed_audio(audio))
    tokens = tiny.tokens(found)
    assert tokens.shape == (2, 3)
    assert int(tokens.max()) < 8


def test_a_long_clip_is_the_mean_of_its_windows(tiny: MuLan) -> None:
    x = torch.randn(1, 375, 404) - 7
    windows = torch.cat([tiny.embed_frames(x[:, start : start + 250]) for start in (0, 125)])
    torch.testing.assert_close(tiny.embed_frames(x), F.normalize(windows.mean(0, keepdim=True), dim=-1))


def test_a_short_clip_is_repeated(tiny: MuLan) -> None:
    x = torch.randn(1, 31, 404) - 7
    torch.testing.assert_close(tiny.embed_frames(x), tiny.embed_frames(x.repeat(1, 4, 1)))


def test_no_audio_is_the_users_mistake(tiny: MuLan) -> None:
    with pytest.raises(UserError, match="too short"):
        tiny.embed_audio(torch.zeros(1, 100))


def test_another_text_gives_another_embedding_whatever_shares_the_batch(tiny: MuLan) -> None:
    texts = ["a slow sad waltz on the accordion", "fast rock with drums and a distorted electric guitar", "a march"]
    together = tiny.embed_text(texts)
    torch.testing.assert_close(together[:1], tiny.embed_text(texts[:1]), atol=1e-5, rtol=1e-4)
    assert (together @ together.T)[0, 1] < 1 - 1e-4


def test_a_very_long_text_is_cut(tiny: MuLan) -> None:
    assert torch.equal(tiny.embed_text(["music " * 3000]), tiny.embed_text(["music " * 300]))


def test_what_a_text_is_true_of() -> None:
    facts = torch.tensor([[0, 5], [0, 6], [-2, 6]])
    claims = torch.tensor([[0, -1], [0, 6], [-1, 6], [-3, -3]])
    assert true_of(claims, facts).int().tolist() == [[1, 1, 0], [0, 1, 0], [0, 1, 1], [0, 0, 0]]


def test_retrieval_by_hand() -> None:
    similarity = torch.tensor([[0.9, 0.1, 0.2], [0.5, 0.4, 0.6]])
    figures = retrieval(similarity, torch.tensor([0, 1]))
    assert figures == {"MRR": pytest.approx((1 + 1 / 3) / 2), "R@10": 1.0}
    # A model that cannot tell clips apart gets no credit for ties.
    assert retrieval(torch.zeros(1, 20), torch.tensor([0]))["MRR"] == pytest.approx(1 / 20)
