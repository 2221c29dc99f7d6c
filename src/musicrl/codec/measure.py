"""Figures of a codec on held-out clips."""

from __future__ import annotations

import time

import torch
from torch import Tensor

from musicrl.audio.loudness import lufs
from musicrl.codec.losses import mel_distance
from musicrl.codec.model import Codec
from musicrl.codec.quantizer import PREFIXES
from musicrl.corpus.dataset import Corpus

SECONDS = 10
_BATCH = 16


@torch.no_grad()
def measure(codec: Codec, corpus: Corpus) -> dict[str, float]:
    """Return figures on the first ten seconds of the validation clips (of the training clips if there are no others).

    Returns:
        Log-mel distance (`losses.mel_distance`) decoded from 1, 2, 4, 12 levels; share of each codebook that occurs;
        entropy of level 1; difference of loudness between decoded and original clip; speed of encoding and decoding
        on this machine, in seconds of audio a second.
    """
    clips = held_out(codec, corpus)
    spent = {"encode": 0.0, "decode": 0.0}
    distances: dict[int, list[Tensor]] = {k: [] for k in PREFIXES}
    codes: list[Tensor] = []
    louder: list[float] = []
    for batch in clips.split(_BATCH):
        started = time.perf_counter()
        codes.append(codec.encode(batch))
        spent["encode"] += time.perf_counter() - started
        for levels in PREFIXES:
            started = time.perf_counter()
            decoded = codec.decode(codes[-1][:, :levels])
            if levels == codec.num_codebooks:
                spent["decode"] += time.perf_counter() - started
                pairs = zip(decoded, batch, strict=True)
                louder += [lufs(a, codec.sample_rate) - lufs(b, codec.sample_rate) for a, b in pairs]
            distances[levels].append(mel_distance(decoded, batch, codec.sample_rate))
    everything = torch.cat(codes)
    levels_of = everything.transpose(0, 1).flatten(1)
    counts = torch.stack([torch.bincount(row, minlength=codec.codebook_size) for row in levels_of])
    share = counts[0] / counts[0].sum()
    heard = torch.tensor([x for x in louder if abs(x) < float("inf")])
    seconds = clips.numel() / codec.sample_rate
    return {
        "clips": float(len(clips)),
        **{f"log-mel L1, {k} of 12 levels": float(torch.cat(d).mean()) for k, d in distances.items()},
        **{f"codes in use, level {k + 1}": float((row > 0).float().mean()) for k, row in enumerate(counts)},
        "entropy of level 1, nats": float(-(share * share.clamp_min(1e-12).log()).sum()),
        "loudness, decoded minus original, LU, mean": float(heard.mean()),
        "loudness, decoded minus original, LU, mean size": float(heard.abs().mean()),
        **{f"{name}, times real time": seconds / spent[name] for name in spent},
    }


@torch.no_grad()
def compare(codec: Codec, rounded: Codec, corpus: Corpus) -> dict[str, float]:
    """Return how far a codec with rounded weights is from the original, on 16 held-out clips.

    Returns:
        Share of equal codes, at level 1 and over all; log-mel distance between what both decode from the same codes.
    """
    audio = held_out(codec, corpus)[:_BATCH]
    ours, theirs = codec.encode(audio), rounded.encode(audio)
    same = (ours == theirs).float()
    distance = mel_distance(rounded.decode(ours), codec.decode(ours), codec.sample_rate)
    return {
        "bf16 against fp32, same codes, level 1": float(same[:, 0].mean()),
        "bf16 against fp32, same codes, all levels": float(same.mean()),
        "bf16 against fp32, log-mel L1 of the same codes": float(distance.mean()),
    }


def held_out(codec: Codec, corpus: Corpus) -> Tensor:
    """Return the first ten seconds of held-out clips [B, N]; shorter ones are repeated."""
    clips = corpus.rows("validation") or corpus.rows("train")
    samples = SECONDS * codec.sample_rate
    audio = [corpus.audio(clip) for clip in clips]
    return torch.stack([clip.repeat(-(-samples // len(clip)))[:samples] for clip in audio])
