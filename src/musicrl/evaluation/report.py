"""The report of a side-by-side comparison: one HTML page, its clips beside it."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from musicrl.evaluation import plots

METRICS = {
    "reward": "reward (what the run maximises)",
    "reward.text_adherence": "text adherence (MuLan cosine)",
    "reward.quality": "predicted quality, 0 to 1",
    "reward.preference": "preference score",
    "kl": "KL to the reference, nats a clip",
    "entropy": "entropy, nats a code",
    "diversity": "distance between a prompt's samples",
}


@dataclass(frozen=True)
class Example:
    """One prompt with the clip of each model: name → (path relative to the report, audio [N])."""

    prompt: str
    clips: Mapping[str, tuple[str, NDArray[np.float32]]]


def read_metrics(run: Path) -> list[dict[str, float]]:
    """Return the rows of a run's `metrics.jsonl`, oldest first; empty where there is none."""
    path = run / "metrics.jsonl"
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def _data_uri(data: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"


def percent(value: float | None, digits: int = 1) -> str:
    """Return a share as a percentage, or a dash where there is none."""
    return "–" if value is None else f"{100 * value:.{digits}f}"


def figure(value: float | None, interval: Sequence[float] | None) -> str:
    """Return a figure with its interval in brackets, or a dash where there is none."""
    if value is None:
        return "–"
    return f"{value:.3f}" if interval is None else f"{value:.3f} ({interval[0]:.3f} to {interval[1]:.3f})"


def write_report(
    path: Path,
    results: Mapping[str, Any],
    runs: Mapping[str, Sequence[Mapping[str, float]]],
    examples: Sequence[Example],
    sample_rate: int,
) -> None:
    """Write the report page.

    Args:
        path: of the HTML file; the clips of `examples` are expected beside it.
        results: what `results.json` holds.
        runs: `metrics.jsonl` rows of each finetuning, by model name.
        examples: prompts with the clips to be heard.
        sample_rate: of the clips, Hz.
    """
    import jinja2

    source = resources.files("musicrl.evaluation").joinpath("report.html.j2").read_text(encoding="utf-8")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    environment.filters["percent"] = percent
    environment.filters["figure"] = figure  # pyright: ignore[reportArgumentType]
    page = environment.from_string(source).render(
        results=results,
        wins=_data_uri(plots.win_bars(results["pairs"]), "svg+xml"),
        curves=_data_uri(plots.curves(runs, METRICS), "svg+xml") if any(runs.values()) else None,
        examples=[
            {
                "prompt": example.prompt,
                "clips": [
                    {
                        "model": name,
                        "file": file,
                        "colour": plots.colour(name),
                        "image": _data_uri(plots.spectrogram(audio, sample_rate), "png"),
                    }
                    for name, (file, audio) in example.clips.items()
                ],
            }
            for example in examples
        ],
    )
    path.write_text(page, encoding="utf-8")
