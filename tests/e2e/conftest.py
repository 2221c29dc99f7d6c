"""A base model of random weights, small enough to go round the whole circle in a minute."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from musicrl import musiclm, weights
from musicrl.codec import Codec
from musicrl.corpus import prompts
from musicrl.mulan import MuLan
from musicrl.musiclm import fine
from musicrl.musiclm.fine import FineShape, FineStage
from musicrl.musiclm.model import MusicLM, Shape
from musicrl.tagger import Tagger
from musicrl.tagger.model import label

CODES = 32
JUDGED = ("style", "lead", "tempo_class", "drums", "mode")


def sha256(part: Path) -> str:
    return json.loads((part / "model/config.json").read_text())["sha256"]


def build(folder: Path) -> None:
    """Write random weights of every part, in the form and with the code of the shipped ones."""
    torch.manual_seed(0)
    architecture = {"width": 32, "encoder_blocks": 1, "decoder_blocks": 1, "output_blocks": 1, "latent_dim": 8}
    codec = Codec(**architecture, codebook_size=CODES)
    torch.nn.init.normal_(codec.quantizer.codebooks)
    weights.write(
        folder / "codec/model",
        {"architecture": {**architecture, "codebook_size": CODES}},
        codec.state_dict(),
        "random",
    )
    small = {"width": 32, "depth": 1, "heads": 2, "text_width": 32, "dim": 16, "levels": 4, "codebook_size": CODES}
    mulan = MuLan(**small)
    torch.nn.init.normal_(mulan.codebooks)
    weights.write(folder / "mulan/model", small, mulan.state_dict(), "random")
    labels: dict[str, list[str]] = {}
    for name in JUDGED:
        named = {label(p.attributes[name]) for p in prompts.load("train") if p.attributes[name] is not None}
        labels[name] = sorted(named)
    about = {"width": 16, "dilations": [1, 2], "labels": labels}
    weights.write(folder / "tagger/model", about, Tagger(**about).state_dict(), "random")
    stage = FineStage(FineShape(width=32, layers=1, heads=2, codebook_size=CODES, latent_width=8))
    codec_sha = sha256(folder / "codec")
    fine.save(stage, folder / "fine/model", "random", trained_on={"codec": codec_sha})
    shape = Shape(
        codebook_size=CODES,
        width=32,
        layers=2,
        heads=2,
        depth_width=32,
        depth_layers=1,
        depth_heads=2,
        condition_levels=4,
        condition_size=CODES,
        condition_width=16,
    )
    musiclm.save(MusicLM(shape), folder / "musiclm/model", "random", trained_on={"mulan": sha256(folder / "mulan")})


@pytest.fixture(scope="session")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder that MUSICRL_WEIGHTS names."""
    folder = tmp_path_factory.mktemp("parts")
    build(folder)
    return folder


@pytest.fixture(scope="module", autouse=True)
def own_parts(parts: Path) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(weights.OWN, str(parts))
        yield
