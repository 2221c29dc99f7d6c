"""A result page in Markdown from the results.json of a circle, for docs/results.

    python -m musicrl.evaluation.page docs/results/alignment.json

writes docs/results/alignment.md.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from musicrl.evaluation.report import figure, percent
from musicrl.files import write_atomic

PAPER = {
    "R vs base": 83.4,
    "U vs base": 74.4,
    "RU vs base": 86.5,
    "U vs R": 53.7,
    "RU vs R": 66.1,
    "RU vs U": 62.4,
}
"""win/(win+loss) in % of human raters on 101 prompts (MusicRL, section 5)."""


def markdown(results: Mapping[str, Any]) -> str:
    """Return the page of a circle's results; every figure in it comes from `results`, but for the paper's."""
    stages = results["stages"]
    pairs = [
        (
            name,
            *(pair[key] for key in ("win", "tie", "loss")),
            percent(pair["rate"]),
            "–" if pair["ci95"] is None else " to ".join(map(percent, pair["ci95"])),
            "–" if pair["wilcoxon_p"] is None else f"{pair['wilcoxon_p']:.2g}",
            PAPER.get(name, "–"),
        )
        for name, pair in results["pairs"].items()
    ]
    models = [
        (
            column,
            *(figure(row[column], results["intervals"][name].get(column)) for name, row in results["models"].items()),
        )
        for column in results["model_columns"]
    ]
    judged = next(iter(results["pairs"].values()))
    parts = [
        f"# {results['title']}",
        f"- Command: `{results['command']}`\n- musicrl {results['version']}, commit {results['commit']}; seed of the"
        f" comparison {results['seed']}, all settings and seeds are in the JSON\n- Finished"
        f" {results['finished']} on {results['threads']} threads, {results['device']}; {sum(stages.values()) / 60:.0f}"
        f" minutes, peak memory {results['peak_rss_mb']:.0f} MB",
        f"**Simulated listeners.** {results['listeners']}",
        "## Side by side",
        f"{results['prompts']} held-out prompts, {results['raters_per_prompt']} simulated raters each out of"
        f" {judged['raters']}. Intervals (95 %) resample raters and prompts together. The last column is what"
        " human raters said of the paper's models: another base, other rewards, people instead of programs.",
        _table(("pair", "win", "tie", "loss", "win/(win+loss) %", "95 % interval", "Wilcoxon p", "paper %"), pairs),
        "## The models beside their rewards",
        results["model_note"],
        _table(("figure", *results["models"]), models),
        "## Reward models and what they learnt from",
        ", ".join(f"{count:,} {name}" for name, count in results["collected"].items()) + ", all simulated.",
        *(
            f"{name.capitalize()} model, held-out figures of step {figures['steps']}:\n\n"
            + _table(("figure", "value"), ((key, f"{value:.3f}") for key, value in figures.items() if key != "steps"))
            for name, figures in results["reward_models"].items()
        ),
        "## Finetunings",
        _table(
            ("model", "steps", "skipped", "ended by"),
            ((name, run["steps"], run["skipped"], run["stopped"]) for name, run in results["finetunings"].items()),
        ),
        "## Time",
        _table(("stage", "seconds"), stages.items()),
    ]
    return "\n\n".join(parts) + "\n"


def _table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def main(paths: Sequence[str]) -> None:
    """Write the page beside each results file."""
    for path in map(Path, paths):
        results = json.loads(path.read_text(encoding="utf-8"))
        write_atomic(path.with_suffix(".md"), markdown(results).encode())


if __name__ == "__main__":
    main(sys.argv[1:])
