from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from musicrl.errors import UserError
from musicrl.rewards.ratings import RatedClip, ceiling, gather, read

KIND = {"rater_kind": "simulated"}


def row(audio: str, value: float, **rest: Any) -> dict[str, Any]:
    return {"audio": audio, "value": value, **rest}


def test_rows_are_gathered_by_clip():
    rows = [
        row("x.wav", 4, prompt="a waltz", rater_kind="person"),
        row("y.wav", 1, axis="quality"),
        row("x.wav", 5, prompt="a waltz", rater_kind="simulated"),
        row("y.wav", 5, axis="appeal"),
    ]
    clips = gather(rows)
    assert clips == [
        RatedClip("x.wav", "a waltz", (4.0, 5.0), ("person", "simulated")),
        RatedClip("y.wav", "y.wav", (1.0,), ("unknown",)),
    ]
    assert clips[0].mean == 4.5


@pytest.mark.parametrize("bad", [{"audio": "x.wav"}, row("x.wav", 6), {"value": 3}, row("x.wav", float("nan"))])
def test_row_that_is_no_rating(bad: dict[str, Any]):
    with pytest.raises(UserError, match="rating 2"):
        gather([row("x.wav", 3), bad])


def test_file_of_plain_and_exported_rows(tmp_path: Path):
    file = tmp_path / "ratings.jsonl"
    exported = {"clip": {"audio": "audio/1.flac"}, "value": 2, "axis": "quality", "prompt": "p"} | KIND
    file.write_text(json.dumps(row("x.wav", 3)) + "\n" + json.dumps(exported) + "\n")
    assert gather(read(file)) == [
        RatedClip(str(tmp_path / "x.wav"), str(tmp_path / "x.wav"), (3.0,), ("unknown",)),
        RatedClip(str(tmp_path / "audio/1.flac"), "p", (2.0,), ("simulated",)),
    ]


@pytest.mark.parametrize("line", ["{", "3", '{"value": 3}', '{"clip": {}, "value": 3}'])
def test_file_with_a_bad_line(tmp_path: Path, line: str):
    file = tmp_path / "ratings.jsonl"
    file.write_text(json.dumps(row("x.wav", 3)) + "\n" + line + "\n")
    with pytest.raises(UserError, match="line 2"):
        read(file)


def test_file_that_is_not_there(tmp_path: Path):
    with pytest.raises(UserError, match="cannot be read"):
        read(tmp_path / "none.jsonl")


def test_ceiling_is_the_correlation_with_the_consensus():
    rng = np.random.default_rng(0)
    truth = rng.normal(3, 0.7, size=4000)
    ratings = truth[:, None] + rng.normal(0, 1.0, size=(4000, 3))
    clips = [RatedClip(str(i), str(i), tuple(float(x) for x in values), ()) for i, values in enumerate(ratings)]
    found = ceiling(clips)
    assert found == pytest.approx(np.corrcoef(truth, ratings.mean(1))[0, 1], abs=0.02)
    assert found == pytest.approx((0.49 / (0.49 + 1 / 3)) ** 0.5, abs=0.02)


def test_ceiling_without_noise_and_without_repeats():
    def clips(*ratings: tuple[float, ...]) -> list[RatedClip]:
        return [RatedClip(str(i), str(i), given, ()) for i, given in enumerate(ratings)]

    assert ceiling(clips((1.0, 1.0), (4.0, 4.0))) == 1.0
    assert ceiling(clips((1.0,), (4.0,))) is None
    assert ceiling(clips((1.0, 5.0), (5.0, 1.0))) == 0.0
