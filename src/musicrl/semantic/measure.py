"""How good tokens are: use of the codes, how predictable they are, and what a linear probe can read from them.

Everything is measured beside the plain alternative of equal rate: k-means on semitone energies and on band energies.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from musicrl.audio.frames import COLUMNS, MELS, standardise
from musicrl.corpus import frames as stored
from musicrl.corpus.dataset import Clip, Corpus
from musicrl.kmeans import kmeans, nearest
from musicrl.semantic.targets import note_targets
from musicrl.semantic.tokenizer import SemanticTokenizer

Coder = Callable[[Tensor], Tensor]
"""From feature frames [1, T, 404] to codes [1, 2, T]."""

_PROBE_CLIPS = 800


@torch.no_grad()
def measure(tokenizer: SemanticTokenizer, corpus: Corpus, folder: Path) -> dict[str, float]:
    """Return figures on held-out clips, for the tokenizer and (names starting with "plain") for plain k-means.

    Args:
        tokenizer: a trained tokenizer.
        corpus: the corpus; probes are fitted on its training clips and read on the others.
        folder: where the corpus lies.

    Returns:
        For each codebook the figures of `statistics`; average precision of probes for pitch classes, attacks and drums;
        accuracy of a style probe.
    """
    fitted = corpus.rows("train")[:_PROBE_CLIPS]
    held_out = [*corpus.rows("validation"), *corpus.rows("test")] or fitted
    plain = _plain_coder(stored.prepare(folder, [clip.file_name for clip in fitted]), tokenizer.codebook_size)
    figures: dict[str, float] = {}
    for prefix, coder in (("", tokenizer.encode_frames), ("plain ", plain)):
        train_codes, test_codes = (_codes(coder, folder, clips) for clips in (fitted, held_out))
        for k, name in enumerate(("tonal", "texture")):
            for figure, value in statistics(
                [c[k] for c in train_codes], [c[k] for c in test_codes], tokenizer.codebook_size
            ).items():
                figures[f"{prefix}{name} {figure}"] = value
        figures |= {
            f"{prefix}probe {name}": value
            for name, value in _probes(corpus, fitted, train_codes, held_out, test_codes).items()
        }
    return figures


def statistics(fitted: list[Tensor], held_out: list[Tensor], size: int) -> dict[str, float]:
    """Return how codes are used and how predictable they are.

    Args:
        fitted: code sequences [T] of training clips, for counts.
        held_out: code sequences [T] to judge.
        size: V.

    Returns:
        `usage` (share of codes that occur in the held-out clips), `entropy` (unigram, nats), `bigram entropy` (held-out
        cross-entropy of a bigram model with the unigram as back-off, nats), `held` (share of frames with the code of
        the frame before).
    """
    joined = torch.cat(held_out)
    share = torch.bincount(joined, minlength=size).double() / len(joined)
    entropy = -(share * share.clamp_min(1e-12).log()).sum()
    unigram = torch.bincount(torch.cat(fitted), minlength=size).double() + 0.1
    unigram = unigram / unigram.sum()
    pairs = torch.cat([c[:-1] * size + c[1:] for c in fitted])
    table = torch.bincount(pairs, minlength=size * size).double().view(size, size)
    before = torch.cat([c[:-1] for c in held_out])
    after = torch.cat([c[1:] for c in held_out])
    # A context seen n times trusts its own counts by n / (n + distinct successors) (Witten-Bell).
    seen, distinct = table.sum(1), (table > 0).sum(1).double().clamp_min(1.0)
    likely = (table[before, after] + distinct[before] * unigram[after]) / (seen + distinct)[before]
    return {
        "usage": float((share > 0).double().mean()),
        "entropy": float(entropy),
        "bigram entropy": float(-likely.log().mean()),
        "held": float((before == after).double().mean()),
    }


def average_precision(scores: Tensor, truth: Tensor) -> float:
    """Return the area under the precision–recall curve of all entries together (micro average).

    Args:
        scores: [M] float, higher is more likely true.
        truth: [M] zeros and ones.
    """
    hits = truth[scores.argsort(descending=True, stable=True)].double()
    precision = hits.cumsum(0) / torch.arange(1, len(hits) + 1, dtype=torch.float64)
    return float((precision * hits).sum() / hits.sum().clamp_min(1.0))


def plain_features(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return what plain k-means clusters: semitones [..., 84] and coarse bands [..., 80] of frames [..., 404]."""
    x = standardise(x)
    bands = x[..., : COLUMNS * MELS].unflatten(-1, (COLUMNS * 20, 4)).mean(-1)
    return x[..., COLUMNS * MELS :], bands


def _plain_coder(paths: list[Path], size: int) -> Coder:
    generator = torch.Generator().manual_seed(0)
    sample = torch.cat([torch.from_numpy(stored.load(path)[::3].copy()).float() for path in paths])
    books = [kmeans(part, size, iterations=20, generator=generator) for part in plain_features(sample)]

    def encode(x: Tensor) -> Tensor:
        return torch.stack([nearest(p[0], book) for p, book in zip(plain_features(x), books, strict=True)])[None]

    return encode


def _codes(coder: Coder, folder: Path, clips: list[Clip]) -> list[Tensor]:
    paths = stored.prepare(folder, [clip.file_name for clip in clips])
    return [coder(torch.from_numpy(stored.load(path).copy()).float()[None])[0] for path in paths]


def _probes(
    corpus: Corpus, fitted: list[Clip], train: list[Tensor], held_out: list[Clip], test: list[Tensor]
) -> dict[str, float]:
    figures: dict[str, float] = {}
    size = 1 + max(int(codes.max()) for codes in [*train, *test])
    x, y = _frame_facts(corpus, fitted, train)
    x_test, y_test = _frame_facts(corpus, held_out, test)
    if len(x) and len(x_test):
        table = _fit_table(x, y, size)
        scores = table[0][x_test[:, 0]] + table[1][x_test[:, 1]]
        for name, part in (("pitch classes", slice(0, 12)), ("attack", slice(12, 13)), ("drums", slice(13, None))):
            figures[name] = average_precision(scores[:, part].flatten(), y_test[:, part].flatten())
    styles = sorted({str(clip.attributes["style"]) for clip in fitted if clip.attributes.get("style")})
    if len(styles) > 1:
        h, s = _clip_facts(fitted, train, styles, size)
        h_test, s_test = _clip_facts(held_out, test, styles, size)
        with torch.enable_grad():
            probe = torch.nn.Linear(h.shape[1], len(styles))
            optimizer = torch.optim.AdamW(probe.parameters(), lr=0.02, weight_decay=0.1)
            for _ in range(200):
                optimizer.zero_grad()
                F.cross_entropy(probe(h), s).backward()
                optimizer.step()
        figures["style"] = float((probe(h_test).argmax(1) == s_test).double().mean())
    return figures


def _frame_facts(corpus: Corpus, clips: list[Clip], codes: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Return codes [M, 2] and facts [M, 19] (12 pitch classes, attack, 6 drums) of all frames with known notes."""
    inputs: list[Tensor] = [torch.zeros(0, 2, dtype=torch.int64)]
    facts: list[Tensor] = [torch.zeros(0, 19)]
    for clip, sequence in zip(clips, codes, strict=True):
        notes = corpus.notes(clip)
        if notes is None:
            continue
        targets = note_targets([notes], [0], sequence.shape[1])
        # Row 0 is MIDI 21, an A; rolling by 9 puts C first.
        keys = F.pad(targets.active[0], (0, 8)).unflatten(1, (8, 12)).amax(1).roll(9, 1)
        inputs.append(sequence.T)
        facts.append(torch.cat([keys, targets.attack[0].amax(1, keepdim=True), targets.drums[0]], 1))
    return torch.cat(inputs), torch.cat(facts)


def _fit_table(codes: Tensor, facts: Tensor, size: int) -> Tensor:
    """Return [2, V, facts] logits, summed over the two codes: a logistic regression on one-hot codes."""
    with torch.enable_grad():
        table = torch.zeros(2, size, facts.shape[1], requires_grad=True)
        optimizer = torch.optim.Adam([table], lr=0.1)
        for _ in range(60):
            optimizer.zero_grad()
            logits = table[0][codes[:, 0]] + table[1][codes[:, 1]]
            F.binary_cross_entropy_with_logits(logits, facts).backward()
            optimizer.step()
    return table.detach()


def _clip_facts(clips: list[Clip], codes: list[Tensor], styles: list[str], size: int) -> tuple[Tensor, Tensor]:
    """Return code histograms [M, 2V] (square roots of shares) and style indices [M] of clips with a known style."""
    rows = [
        (c, styles.index(str(clip.attributes["style"])))
        for clip, c in zip(clips, codes, strict=True)
        if clip.attributes.get("style") in styles
    ]
    shares = [torch.cat([torch.bincount(k, minlength=size) / len(k) for k in c]) for c, _ in rows]
    return torch.stack(shares).sqrt() * 4, torch.tensor([style for _, style in rows])
