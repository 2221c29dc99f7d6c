from __future__ import annotations

import json
from pathlib import Path

from musicrl.evaluation import page

RESULTS = Path(__file__).parents[2] / "docs" / "results"


def test_the_result_page_says_what_its_json_says() -> None:
    path = RESULTS / "alignment.json"
    assert path.with_suffix(".md").read_text(encoding="utf-8") == page.markdown(json.loads(path.read_text("utf-8")))


def test_a_page_gives_each_figure_and_says_who_judged() -> None:
    pair = {"win": 30, "tie": 4, "loss": 10, "rate": 0.75, "ci95": [0.61, 0.86], "n": 44, "raters": 9, "prompts": 15}
    undecided = {**pair, "win": 0, "tie": 44, "loss": 0, "rate": None, "ci95": None, "wilcoxon_p": None}
    text = page.markdown(
        {
            "title": "A circle",
            "command": "musicrl quickstart",
            "version": "1",
            "commit": "abc",
            "seed": 1,
            "finished": "now",
            "threads": 2,
            "device": "cpu",
            "listeners": "No person rated these clips.",
            "prompts": 15,
            "raters_per_prompt": 3,
            "pairs": {"R vs base": {**pair, "wilcoxon_p": 0.0123}, "mine vs base": undecided},
            "models": {"base": {"mean rating": 3.0, "match": 0.5, "reward": None}},
            "intervals": {"base": {"match": [0.4, 0.61]}},
            "model_columns": ["mean rating", "match", "reward"],
            "model_note": "A note.",
            "stages": {"pairs": 60.0, "R": 30.0},
            "peak_rss_mb": 1234.5,
            "collected": {"votes": 2000},
            "finetunings": {"R": {"steps": 7, "skipped": 1, "stopped": "kl"}},
            "reward_models": {"quality": {"steps": 20, "pearson": 0.5}},
        }
    )
    assert "| R vs base | 30 | 4 | 10 | 75.0 | 61.0 to 86.0 | 0.012 | 83.4 |" in text
    assert "| mine vs base | 0 | 44 | 0 | – | – | – | – |" in text
    assert "| figure | base |" in text
    assert "| mean rating | 3.000 |" in text
    assert "| match | 0.500 (0.400 to 0.610) |" in text
    assert "| reward | – |" in text
    assert "| R | 7 | 1 | kl |" in text
    assert "2,000 votes, all simulated" in text
    assert "Simulated listeners" in text
    assert "2 minutes, peak memory 1234 MB" in text
