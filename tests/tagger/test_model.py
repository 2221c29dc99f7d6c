from __future__ import annotations

import math

import pytest
import torch

from musicrl.errors import UserError
from musicrl.tagger.model import Tagger
from musicrl.tagger.train import calibration_error, degrade

LABELS = {"style": ["jig", "march", "waltz"], "drums": ["no", "yes"]}


@pytest.fixture(scope="module")
def tiny() -> Tagger:
    torch.manual_seed(0)
    return Tagger(width=16, dilations=(1, 2), labels=LABELS).eval()


def test_probabilities_sum_to_one_and_repeat(tiny: Tagger) -> None:
    audio = torch.randn(2, 24_000 * 4) * 0.1
    found = tiny(audio)
    assert {name: p.shape for name, p in found.items()} == {"style": (2, 3), "drums": (2, 2)}
    for name, p in found.items():
        torch.testing.assert_close(p.sum(1), torch.ones(2))
        assert torch.equal(p, tiny(audio)[name])


def test_match_is_the_mean_of_what_is_named(tiny: Tagger) -> None:
    audio = torch.randn(3, 24_000 * 3) * 0.1
    found = tiny(audio)
    named = [
        {"style": "waltz", "drums": True, "lead": "flute"},
        {"style": None, "drums": False},
        {"style": None},
    ]
    expected = [(found["style"][0, 2] + found["drums"][0, 1]) / 2, found["drums"][1, 0], torch.tensor(1.0)]
    torch.testing.assert_close(tiny.match(audio, named), torch.stack(expected))


def test_a_value_it_does_not_know_is_named(tiny: Tagger) -> None:
    with pytest.raises(UserError, match="no style 'polka'; it knows jig, march, waltz"):
        tiny.match(torch.zeros(1, 24_000 * 3), [{"style": "polka"}])


def test_a_higher_temperature_is_less_sure(tiny: Tagger) -> None:
    audio = torch.randn(1, 24_000 * 3) * 0.1
    before = tiny(audio)["style"].max()
    tiny.temperatures.fill_(10.0)
    assert tiny(audio)["style"].max() < before
    tiny.temperatures.fill_(1.0)


def test_degraded_frames_stay_frames() -> None:
    x = torch.full((4, 80, 404), -6.0)
    y = degrade(x, torch.Generator().manual_seed(0))
    assert y.shape == x.shape
    assert torch.isfinite(y).all()
    assert y.min() >= math.log(1e-5) - 1e-4
    assert not torch.equal(y[0], y[1])


def test_calibration_error_by_hand() -> None:
    sure = torch.tensor([[0.95, 0.05]] * 4)
    # Says 95 %, is right three times in four.
    assert calibration_error(sure, torch.tensor([0, 0, 0, 1])) == pytest.approx(0.2, abs=1e-6)
