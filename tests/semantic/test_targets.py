from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from musicrl.audio.frames import WIDTH
from musicrl.semantic.measure import average_precision, statistics
from musicrl.semantic.targets import RandomProjectionLabels, note_targets, random_spans

NOTES = np.array(
    [
        # onset s, duration s, pitch, program, velocity
        [0.08, 0.12, 69, 0, 90],  # piano A4: frames 2, 3, 4
        [0.21, 0.04, 60, 73, 90],  # flute C4: starts in frame 5, second 10 ms of it
        [0.20, 0.10, 36, 128, 90],  # kick in frame 5, first 10 ms
        [0.28, 0.10, 42, 128, 90],  # hi-hat in frame 7
    ],
    np.float32,
)


def test_targets_of_hand_made_notes() -> None:
    targets = note_targets([NOTES], [0], 8)
    assert targets.active[0, :, 69 - 21].tolist() == [0, 0, 1, 1, 1, 0, 0, 0]
    assert targets.active[0, :, 60 - 21].tolist() == [0, 0, 0, 0, 0, 1, 0, 0]
    assert torch.nonzero(targets.onset[0]).tolist() == [[2, 48], [5, 39]]
    assert targets.attack[0, 5].tolist() == [1, 1, 0, 0]
    assert torch.nonzero(targets.drums[0]).tolist() == [[5, 0], [7, 2]]
    assert torch.nonzero(targets.families[0].sum(0))[:, 0].tolist() == [0, 9]
    assert targets.known.flatten().tolist() == [1]


def test_a_crop_is_the_same_frames_of_the_clip() -> None:
    whole, part = note_targets([NOTES], [0], 8), note_targets([NOTES], [3], 5)
    for name in ("active", "onset", "attack", "drums", "families"):
        assert torch.equal(getattr(whole, name)[:, 3:], getattr(part, name)), name


def test_unknown_notes_count_for_nothing() -> None:
    targets = note_targets([None], [0], 4)
    assert targets.known.item() == 0
    assert targets.active.sum() == 0


def test_masked_spans_cover_about_their_share_and_are_whole() -> None:
    mask = random_spans((64, 400), 0.25, 8, torch.Generator().manual_seed(0))
    assert mask.float().mean() == pytest.approx(0.25, abs=0.02)
    for row in mask[:, :-8].int().tolist():
        runs = "".join(map(str, row)).strip("1").split("0")
        assert all(len(run) == 0 or len(run) >= 8 for run in runs)


def test_random_projection_labels_depend_on_the_frame_only_through_its_direction() -> None:
    labels = RandomProjectionLabels(2, 32, 8, seed=0)
    x = torch.randn(1, 6, WIDTH)
    mask = torch.ones(1, 6, dtype=torch.bool)
    found = labels(x, mask)
    assert found.shape == (6, 2)
    # Every frame of a clip louder by the same amount: the clip is centred first, so nothing changes.
    assert torch.equal(found, labels(x + 1.5, mask))
    assert not torch.equal(found, labels(x.flip(-1), mask))


def test_statistics_of_a_clock() -> None:
    clock = torch.arange(4).repeat(500)
    figures = statistics([clock], [clock], 8)
    assert figures["usage"] == 0.5
    assert figures["entropy"] == pytest.approx(np.log(4))
    # Each code is followed by one other, always: nothing is left to guess but the back-off's share.
    assert figures["bigram entropy"] < 0.01
    assert figures["held"] == 0


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000))
def test_a_bigram_model_never_loses_much_to_a_unigram_model(seed: int) -> None:
    codes = torch.randint(0, 6, (4000,), generator=torch.Generator().manual_seed(seed))
    figures = statistics([codes], [codes], 6)
    assert figures["bigram entropy"] == pytest.approx(figures["entropy"], abs=0.05)


def test_average_precision_by_hand() -> None:
    # Order by score: true, false, true -> precisions 1 and 2/3.
    found = average_precision(torch.tensor([0.9, 0.5, 0.7]), torch.tensor([1.0, 1.0, 0.0]))
    assert found == pytest.approx((1 + 2 / 3) / 2)
    assert average_precision(torch.tensor([0.1, 0.2]), torch.zeros(2)) == 0
