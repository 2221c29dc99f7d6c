"""Pictures of the report: curves, win bars, waveforms with spectrograms. All return SVG or PNG bytes."""

from __future__ import annotations

import io
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

COLOURS = {"base": "#6b7280", "r": "#2563eb", "u": "#d97706", "ru": "#059669"}
INK = "#1f2937"


def _figure(width: float, height: float, rows: int = 1, columns: int = 1) -> tuple[Any, Any]:
    """Return a figure and its axes [rows, columns] drawn without a display."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(labelsize=8, colors=INK)
    return figure, axes


def _svg(figure: Any) -> bytes:
    """Return the figure as SVG; the same data give the same bytes."""
    import matplotlib

    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "musicrl", "svg.fonttype": "none"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def colour(model: str) -> str:
    """Return the colour a model has in every picture."""
    return COLOURS.get(model.lower(), "#7c3aed")


def curves(runs: Mapping[str, Sequence[Mapping[str, float]]], columns: Mapping[str, str]) -> bytes:
    """Draw one panel a metric with one line a run, against the training step.

    Args:
        runs: rows of `metrics.jsonl` by run name.
        columns: metric key → panel title. A run without the key is left out of that panel.

    Returns:
        SVG.
    """
    shown = {key: title for key, title in columns.items() if any(key in row for rows in runs.values() for row in rows)}
    across = min(3, max(1, len(shown)))
    down = max(1, -(-len(shown) // across))
    figure, axes = _figure(3.4 * across, 2.2 * down, down, across)
    for axis in axes.flat[len(shown) :]:
        axis.set_visible(False)
    for axis, (key, title) in zip(axes.flat, shown.items(), strict=False):
        for name, rows in runs.items():
            points = [(row["step"], row[key]) for row in rows if key in row]
            if points:
                x, y = zip(*points, strict=True)
                axis.plot(x, y, color=colour(name), linewidth=1.6, label=name.upper())
        axis.set_title(title, fontsize=9, color=INK, loc="left")
        axis.set_xlabel("step", fontsize=8, color=INK)
        axis.grid(alpha=0.25, linewidth=0.6)
    if shown:
        axes.flat[0].legend(fontsize=8, frameon=False)
    return _svg(figure)


def win_bars(pairs: Mapping[str, Mapping[str, Any]]) -> bytes:
    """Draw win, tie and loss shares of each pair of models as one bar.

    Args:
        pairs: the `pairs` table of results.json.

    Returns:
        SVG.
    """
    figure, axes = _figure(8.2, 0.42 * max(1, len(pairs)) + 0.7)
    axis = axes[0, 0]
    names = list(pairs)[::-1]
    for row, name in enumerate(names):
        counts = [pairs[name][key] for key in ("win", "tie", "loss")]
        total = max(1, sum(counts))
        left = 0.0
        for count, shade in zip(counts, ("#059669", "#d1d5db", "#dc2626"), strict=True):
            share = 100 * count / total
            axis.barh(row, share, left=left, color=shade, height=0.62)
            if share >= 6:
                ink = INK if shade == "#d1d5db" else "white"
                axis.text(left + share / 2, row, f"{share:.0f}", ha="center", va="center", fontsize=8, color=ink)
            left += share
    axis.set_yticks(range(len(names)), names, fontsize=9)
    axis.set_xlim(0, 100)
    axis.set_xlabel("% of judgements: won, tied, lost by the first named", fontsize=8, color=INK)
    return _svg(figure)


def spectrogram(audio: NDArray[np.float32], sample_rate: int) -> bytes:
    """Draw a waveform above its spectrogram (60 Hz to 10 kHz, logarithmic, 80 dB).

    Args:
        audio: [N] samples.
        sample_rate: Hz.

    Returns:
        PNG.
    """
    from scipy.signal import ShortTimeFFT
    from scipy.signal.windows import hann

    figure, axes = _figure(3.6, 2.1, 2, 1)
    seconds = len(audio) / sample_rate
    wave, image = axes[0, 0], axes[1, 0]
    hop = max(1, len(audio) // 720)
    frames = audio[: len(audio) // hop * hop].reshape(-1, hop)
    time = np.linspace(0, seconds, len(frames))
    wave.fill_between(time, frames.min(1), frames.max(1), color="#2563eb", linewidth=0)
    wave.set_ylim(-1, 1)
    wave.set_axis_off()
    stft = ShortTimeFFT(hann(1024), hop=256, fs=sample_rate)
    power = 10 * np.log10(np.abs(stft.stft(audio)) ** 2 + 1e-10)
    edges = np.geomspace(60, min(10_000, sample_rate / 2), 97)
    bins = np.clip(np.searchsorted(stft.f, edges), 0, len(stft.f) - 1)
    rows = [power[a : max(a + 1, b)].mean(0) for a, b in itertools.pairwise(bins)]
    top = float(power.max())
    image.imshow(
        np.stack(rows), origin="lower", aspect="auto", vmin=top - 80, vmax=top, cmap="magma", extent=(0, seconds, 0, 96)
    )
    image.set_axis_off()
    wave.set_xlim(0, seconds)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=90)
    return buffer.getvalue()
