"""`musicrl pretrain`: the parts of the base model, each trained on a corpus from its settings."""

from __future__ import annotations

import importlib
import os
from collections.abc import Sequence
from pathlib import Path

from musicrl import config, devices, weights
from musicrl.errors import UserError

PARTS = {
    "codec": "musicrl.codec",
    "semantic": "musicrl.semantic.train",
    "mulan": "musicrl.mulan.train",
    "tagger": "musicrl.tagger.train",
    "fine": "musicrl.musiclm.fine_train",
    "musiclm": "musicrl.musiclm.train",
}
"""Module of each part, in an order in which every part finds what it needs."""


def pretrain(
    part: str, corpus: Path, out: Path, file: Path | None, overrides: Sequence[str], *, resume: bool
) -> list[Path]:
    """Train one part, or all of them in order.

    Args:
        part: name of a part, or "all".
        corpus: corpus folder.
        out: a run folder for each part is made in it.
        file: TOML file of the part's settings; not for "all".
        overrides: `key=value` settings of the part; not for "all".
        resume: continue runs that are there.

    Returns:
        The run folders, with the weights in `model`. To use them, set `MUSICRL_WEIGHTS` to `out`.

    Raises:
        UserError: there is no such part or corpus, or what a training raises.
    """
    if part != "all" and part not in PARTS:
        raise UserError(f"there is no part '{part}' to pretrain; give one of {', '.join(PARTS)}, or all")
    if part == "all" and (file is not None or overrides):
        raise UserError("settings belong to one part; pretrain the parts one by one, or all of them without settings")
    devices.set_threads()
    # A part is trained on what the parts before it make, so those of this base come before the shipped ones.
    os.environ[weights.OWN] = str(out)
    folders: list[Path] = []
    for name in PARTS if part == "all" else (part,):
        settings = config.load(config.STAGES[name], file, overrides)
        importlib.import_module(PARTS[name]).train(settings, corpus, out / name, resume)
        folders.append(out / name)
    return folders
