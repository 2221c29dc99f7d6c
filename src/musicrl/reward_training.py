"""`musicrl reward train`: reward models from what is in a preference store."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from musicrl import config, devices
from musicrl.errors import UserError
from musicrl.feedback.store import PreferenceStore
from musicrl.rewards import preference, quality
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
        Folder of the model, and its held-out figures.

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
    return out / "model", fitted.held_out
