"""Figures of MuLan on held-out clips: retrieval, attributes of the retrieved clip, modality gap, quantization."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from musicrl.corpus import frames as stored
from musicrl.corpus import prompts
from musicrl.corpus.dataset import Corpus
from musicrl.mulan.model import MuLan
from musicrl.mulan.text import pad, token_states

_ATTRIBUTES = ("style", "lead", "tempo_class", "drums")


@torch.no_grad()
def measure(mulan: MuLan, corpus: Corpus, folder: Path) -> dict[str, float]:
    """Return figures on the validation and test clips of a corpus (its training clips if it has no others).

    Returns:
        Text-to-clip mean reciprocal rank and recall at 10; the share of first clips that share an attribute with the
        caption's clip ("same ..."), and of random clips that do ("chance"); for test prompts, the share of first clips
        that have what the prompt names; cosine of paired and of shuffled embeddings; the gap between the two sides
        before and after centring; cosine of embeddings with what 1, 2, 4 ... of their codes stand for.
    """
    clips = [*corpus.rows("validation"), *corpus.rows("test")] or corpus.rows("train")
    paths = stored.prepare(folder, [clip.file_name for clip in clips])
    embedded = [mulan.embed_frames(torch.from_numpy(stored.load(path).copy()).float()[None]) for path in paths]
    audio = torch.cat(embedded)
    owners = torch.tensor([i for i, clip in enumerate(clips) for _ in clip.captions])
    states = token_states([text for clip in clips for text in clip.captions.values()])
    text = mulan.embed_states(states)
    similarity = text @ audio.T
    figures = {"clips": float(len(clips)), **retrieval(similarity, owners)}
    first = similarity.argmax(1)
    for name in _ATTRIBUTES:
        values = [clip.attributes.get(name) for clip in clips]
        asked = [i for i, owner in enumerate(owners.tolist()) if values[owner] is not None]
        if asked:
            figures[f"same {name}"] = _mean([values[int(first[i])] == values[int(owners[i])] for i in asked])
            figures[f"same {name}, chance"] = _mean([v == w for v in values for w in values if v is not None])
    figures |= _by_prompts(mulan, audio, [dict(clip.attributes) for clip in clips])

    figures["cosine of pairs"] = float(similarity[torch.arange(len(owners)), owners].mean())
    figures["cosine of shuffled pairs"] = float(similarity.mean())
    figures |= _gap(mulan, paths, states)
    codes = torch.cat([mulan.tokens(audio), mulan.tokens(text)])
    points = torch.cat([audio, text])
    for levels in (1, 2, 4, 8, codes.shape[1]):
        cosine = F.cosine_similarity(mulan.from_tokens(codes[:, :levels]), points)
        figures[f"cosine after {levels} codes, audio"] = float(cosine[: len(audio)].mean())
        figures[f"cosine after {levels} codes, text"] = float(cosine[len(audio) :].mean())
    return figures


def retrieval(similarity: Tensor, owners: Tensor) -> dict[str, float]:
    """Return mean reciprocal rank and recall at 10.

    Args:
        similarity: [texts, clips].
        owners: [texts] int64, the clip each text belongs to. Ties count against it.
    """
    own = similarity.gather(1, owners[:, None])
    rank = (similarity >= own).sum(1).double()
    return {"MRR": float((1 / rank).mean()), "R@10": float((rank <= 10).double().mean())}


def _by_prompts(mulan: MuLan, audio: Tensor, facts: list[dict[str, object]]) -> dict[str, float]:
    asked = prompts.load("test")
    first = (mulan.embed_text([prompt.text for prompt in asked]) @ audio.T).argmax(1).tolist()
    figures: dict[str, float] = {}
    for name in _ATTRIBUTES:
        named = [
            (prompt.attributes[name], clip)
            for prompt, clip in zip(asked, first, strict=True)
            if prompt.attributes.get(name) is not None
        ]
        if named:
            figures[f"test prompts: {name}"] = _mean([facts[clip].get(name) == value for value, clip in named])
    return figures


def _gap(mulan: MuLan, paths: list[Path], states: list[Tensor]) -> dict[str, float]:
    """Return how far apart the means of both sides are, before and after centring."""
    text = torch.cat([mulan.text(*pad(states[i : i + 64])) for i in range(0, len(states), 64)])
    crops = torch.stack([stored.crop(path, 0, 248) for path in paths])
    audio = torch.cat([mulan.audio(part) for part in crops.split(64)])
    audio, text = F.normalize(audio, dim=-1), F.normalize(text, dim=-1)
    after_audio = F.normalize(audio - mulan.audio_centre, dim=-1)
    after_text = F.normalize(text - mulan.text_centre, dim=-1)
    return {
        "distance of means before centring": float((audio.mean(0) - text.mean(0)).norm()),
        "distance of means after centring": float((after_audio.mean(0) - after_text.mean(0)).norm()),
        "cosine of means before centring": float(F.cosine_similarity(audio.mean(0), text.mean(0), dim=0)),
        "norm of audio mean before centring": float(audio.mean(0).norm()),
        "norm of audio mean after centring": float(after_audio.mean(0).norm()),
    }


def _mean(hits: list[bool]) -> float:
    return sum(hits) / max(1, len(hits))
