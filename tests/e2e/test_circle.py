"""The whole circle through the public commands, with random weights and as few steps as there can be."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import soundfile

RECIPES = Path(__file__).parents[2] / "recipes"
TINY = (
    "collect.prompts=8 collect.clips_per_prompt=2 collect.seconds=2 collect.rated_prompts=8 collect.users=5 "
    "collect.votes_per_pair=3 quality.steps=4 quality.validation=0.4 quality.eval_every=2 "
    "preference.steps=4 preference.batch_size=4 preference.validation=0.4 preference.eval_every=2 "
    + " ".join(f"{run}.steps=2 {run}.prompts_per_step=2 {run}.group_size=2 {run}.seconds=2" for run in ("r", "u", "ru"))
    + " evaluate.prompts=4 evaluate.raters=4 evaluate.seconds=2 evaluate.examples=1"
).split()


def musicrl(*arguments: str | Path, cwd: Path, timeout: float = 280) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "musicrl", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=timeout)


@pytest.fixture(scope="module")
def circle(tmp_path_factory: pytest.TempPathFactory, own_parts: None) -> Path:
    """A finished tiny circle; the folder it was run in."""
    folder = tmp_path_factory.mktemp("circle")
    result = musicrl("quickstart", *TINY, cwd=folder)
    assert result.returncode == 0, result.stderr
    assert "report.html" in result.stdout
    assert "next: musicrl generate" in result.stdout
    return folder


@pytest.mark.slow
def test_quickstart_writes_results_and_report(circle: Path) -> None:
    out = circle / "runs/quickstart"
    results = json.loads((out / "results.json").read_text())
    assert list(results["pairs"]) == ["R vs base", "U vs base", "RU vs base", "U vs R", "RU vs R", "RU vs U"]
    for pair in results["pairs"].values():
        assert pair["win"] + pair["tie"] + pair["loss"] == pair["n"] == 12
        decisive = pair["win"] + pair["loss"]
        assert pair["rate"] == (pytest.approx(pair["win"] / decisive) if decisive else None)
    assert results["collected"] == {"clips": 16, "pairs": 8, "votes": 24, "ratings": 48}
    assert all(seconds > 0 for seconds in results["stages"].values())
    assert results["finetunings"]["R"] == {"steps": 2, "skipped": 0, "stopped": "steps"}
    assert results["settings"]["r"]["steps"] == 2
    judgements = [json.loads(line) for line in (out / "judgements.jsonl").read_text().splitlines()]
    assert {row["rater_kind"] for row in judgements} == {"simulated"}
    assert 0 < results["peak_rss_mb"] < 6000
    page = (out / "report.html").read_text()
    assert "Simulated listeners" in page
    for model in ("base", "r", "u", "ru"):
        info = soundfile.info(out / f"audio/00-{model}.wav")
        assert (info.samplerate, info.channels, info.frames) == (24_000, 1, 48_000)
        assert f"audio/00-{model}.wav" in page


@pytest.mark.slow
def test_a_finished_circle_is_not_run_again(circle: Path) -> None:
    results = circle / "runs/quickstart/results.json"
    before = results.stat().st_mtime_ns
    again = musicrl("quickstart", *TINY, cwd=circle)
    assert again.returncode == 0
    assert again.stdout.count("done before") == 7
    assert results.stat().st_mtime_ns == before
    other = musicrl("quickstart", *TINY, "r.steps=3", cwd=circle)
    assert other.returncode == 2
    assert "--fresh" in other.stderr


@pytest.mark.slow
def test_the_circles_store_feeds_the_single_commands(circle: Path) -> None:
    store = circle / "runs/quickstart/store"
    stats = musicrl("preferences", "stats", "--store", store, cwd=circle)
    assert json.loads(stats.stdout)
    assert "simulated" in stats.stdout
    exported = musicrl("preferences", "export", circle / "export", "--store", store, cwd=circle)
    assert exported.returncode == 0
    rows = [json.loads(line) for line in (circle / "export/preferences.jsonl").read_text().splitlines()]
    assert {"prompt", "chosen", "rejected"} <= rows[0].keys()
    trained = musicrl(
        "reward", "train", "preference", "--store", store, "steps=2", "batch_size=4", "validation=0.4", "eval_every=1",
        "--out", circle / "preference", cwd=circle,
    )  # fmt: skip
    assert trained.returncode == 0, trained.stderr
    recipe = RECIPES / "u.toml"
    small = ("steps=1", "prompts_per_step=2", "group_size=2", "seconds=2")
    model = circle / "preference/model"
    tuned = musicrl("finetune", recipe, *small, f"preference={model}", "--out", circle / "u", cwd=circle)
    assert tuned.returncode == 0, tuned.stderr
    evaluated = musicrl(
        "evaluate", f'models=["base", "{circle / "u/policy"}"]', "prompts=3", "seconds=2", "raters=3",
        "--out", circle / "evaluation", cwd=circle,
    )  # fmt: skip
    assert evaluated.returncode == 0, evaluated.stderr
    assert (circle / "evaluation/report.html").is_file()
    again = musicrl("evaluate", f'models=["base", "{circle / "u/policy"}"]', "--out", circle / "evaluation", cwd=circle)
    assert (again.returncode, again.stderr.count("\n")) == (2, 1)
    assert "already holds results" in again.stderr


@pytest.mark.slow
def test_generate_is_the_same_for_a_seed_and_another_for_another(tmp_path: Path) -> None:
    for folder, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        result = musicrl(
            "generate", "a slow sad waltz on the accordion", "-n", "2", "--seconds", "3", "--seed", seed, "-o", folder,
            cwd=tmp_path,
        )  # fmt: skip
        assert result.returncode == 0, result.stderr
        assert [Path(line).parent.name for line in result.stdout.splitlines()] == [folder] * 2
    first, again, other = (sorted((tmp_path / folder).iterdir()) for folder in "abc")
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in again]
    assert first[0].read_bytes() != other[0].read_bytes()
    audio, rate = soundfile.read(first[0])
    assert (len(audio), rate) == (72_000, 24_000)
    assert 0.05 < abs(audio).max() < 1


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="sends SIGINT")
def test_ctrl_c_in_a_finetuning_saves_and_resumes(tmp_path: Path) -> None:
    recipe = RECIPES / "r.toml"
    small = ["rewards={text_adherence=1.0}", "prompts_per_step=2", "group_size=2", "seconds=1", "steps=400"]
    command = [sys.executable, "-m", "musicrl", "finetune", str(recipe), *small, "-o", "run"]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    metrics = tmp_path / "run/metrics.jsonl"
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline and not (metrics.exists() and metrics.read_text().count("\n") >= 2):
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 2, stderr
    assert "--resume" in stderr.splitlines()[-1]
    assert any((tmp_path / "run/checkpoints").iterdir())
    refused = musicrl("finetune", recipe, *small, "-o", "run", cwd=tmp_path)
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        ["generate", ""],
        ["generate", "x" * 10_000],
        ["generate", "a waltz", "--seconds", "0"],
        ["generate", "a waltz", "--seconds", "1000"],
        ["generate", "a waltz", "-n", "0"],
        ["generate", "a waltz", "--seed", "99999999999999999999"],
        ["quickstart", "r.seed=99999999999999999999"],
        ["finetune", str(RECIPES / "u.toml"), "preference=codec"],
        ["finetune", str(RECIPES / "r.toml"), "quality=codec"],
        ["generate", "a waltz", "--model", "no/such/model"],
        ["finetune", "no/such/recipe.toml"],
        ["quickstart", "r.stepz=1"],
        ["preferences", "stats", "--store", "no/such/store"],
        ["preferences", "export", "there", "--store", "no/such/store"],
        ["reward", "train", "taste"],
        ["reward", "train", "preference", "--store", "no/such/store"],
        ["evaluate", 'models=["base"]'],
        ["pretrain", "flute"],
        ["pretrain", "codec", "--corpus", "no/such/corpus"],
        ["pretrain", "all", "steps=1"],
        ["serve", "host=0.0.0.0"],
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(arguments: list[str], tmp_path: Path) -> None:
    result = musicrl(*arguments, cwd=tmp_path)
    assert result.returncode == 2
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1, result.stderr
    assert not list(tmp_path.rglob("*.wav"))
