"""`musicrl reward train`: reward models from what is in a preference store."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from musicrl import config, devices, weights
from musicrl.errors import UserError
from musicrl.feedback.store import PreferenceStore
from musicrl.rewards import kinds, preference, quality
from musicrl.rewards import ratings as rated


def train(
    name: str,
    store: Path,
    ratings: Path | None,
    out: Path,
    file: Path | None,
    overrides: Sequence[str],
    *,
    resume: bool,
) -> tuple[Path, dict[str, float]]:
    """Train the quality model on ratings, or the preference model on votes.

    Args:
        name: "quality" or "preference".
        store: folder of the preference store.
        ratings: file of ratings that takes the place of the store's; quality only.
        out: run folder.
        file: TOML file of settings.
        overrides: `key=value` settings.
        resume: continue the run that is there.

    Returns:
        Folder of the model, and its held-out figures with how many votes or ratings of each kind of rater there were
        ("simulated votes").

    Raises:
        UserError: there is no such reward, no store, or too little in it.
    """
    devices.set_threads()
    if name == "quality":
        if ratings is not None:
            rows = rated.read(ratings)
        else:
            with PreferenceStore.existing(store) as opened:
                rows = [dict(row) for row in opened.ratings_for_training()]
        fitted = quality.train(config.load(config.QualityConfig, file, overrides), rows, out, resume)
    elif name == "preference":
        if ratings is not None:
            raise UserError("--ratings is for the quality model; the preference model learns from votes in --store")
        with PreferenceStore.existing(store) as opened:
            pairs = list(opened.pairs_for_training())
        fitted = preference.train(config.load(config.PreferenceConfig, file, overrides), pairs, out, resume)
    else:
        raise UserError(f"there is no reward model '{name}' to train; give quality or preference")
    noun = "ratings" if name == "quality" else "votes"
    counts: dict[str, int] = weights.read(out / "model")[0][noun]
    print(f"trained and measured on {kinds.sentence(counts, noun)}")
    return out / "model", fitted.held_out | {f"{kind} {noun}": float(number) for kind, number in counts.items()}
