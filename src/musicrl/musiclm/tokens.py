"""The corpus as tokens, encoded once and kept beside it, so that the token models train at the speed of a lookup."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from musicrl import files, weights
from musicrl.corpus import frames as stored
from musicrl.corpus import prompts
from musicrl.corpus.dataset import Clip, Corpus
from musicrl.errors import UserError
from musicrl.progress import progress

_PROMPTS = 24
"""Prompts kept for one clip; hundreds are true of a common style."""

_BATCH = 16

_SHORTEST_SECONDS = 1.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Conditions:
    """MuLan tokens of the clips of one split.

    Attributes:
        audio: [clips, R] int16, of each clip's sound.
        captions: [clips, C, R] int16, of its captions; a clip with fewer than C repeats them.
        prompts: [clips, P, R] int16, of training prompts true of it; captions where there are none.
    """

    audio: Tensor
    captions: Tensor
    prompts: Tensor


@dataclass(frozen=True)
class Codes:
    """Semantic and codec codes of the clips of one split; clips lie one after the other.

    Attributes:
        starts: [clips + 1] int64, first 25 Hz frame of each clip, and the end.
        semantic: [S, 2] int16.
        acoustic: [2·S, 12] int16.
    """

    starts: Tensor
    semantic: Tensor
    acoustic: Tensor

    @property
    def frames(self) -> Tensor:
        """Number of 25 Hz frames of each clip, [clips] int64."""
        return self.starts.diff()

    def crops(self, clips: Tensor, length: int, places: Tensor) -> tuple[Tensor, Tensor]:
        """Return crops of clips.

        Args:
            clips: [B] int64.
            length: T, 25 Hz frames, at most the length of each clip.
            places: [B] in [0, 1), where each crop lies within the room it has.

        Returns:
            Semantic codes [B, 2, T] and acoustic codes [B, 12, 2·T], int64.
        """
        room = self.frames[clips] - length + 1
        first = self.starts[clips] + (places * room).long()
        index = first[:, None] + torch.arange(length)
        fine = 2 * first[:, None] + torch.arange(2 * length)
        return self.semantic[index].transpose(1, 2).long(), self.acoustic[fine].transpose(1, 2).long()

    def draw(
        self, batch: int, longest: int, shortest: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Draw random crops of one random length, clips in proportion to their length.

        Returns:
            Clips [B], semantic codes [B, 2, T] and acoustic codes [B, 12, 2·T].
        """
        clips = torch.multinomial(self.frames.double(), batch, replacement=True, generator=generator)
        length = int(torch.randint(shortest, longest + 1, (), generator=generator))
        length = min(length, int(self.frames[clips].min()))
        return clips, *self.crops(clips, length, torch.rand(batch, generator=generator))


def codes(folder: Path, split: str) -> Codes:
    """Return the codes of a split, encoding with the installed tokenizers what is not there yet.

    Args:
        folder: corpus folder; tokens go to `.tokens` in it, under names that change with corpus and tokenizers.
        split: "train", "validation" or "test".

    Raises:
        UserError: a tokenizer's weights or a clip cannot be read, or the split is empty.
    """
    corpus, clips = _clips(folder, split)
    semantic = _cached(corpus, split, "semantic", lambda: semantic_tokens(folder, clips))
    acoustic = _cached(corpus, split, "codec", lambda: acoustic_tokens(corpus, clips, semantic["starts"].diff()))
    return Codes(**semantic, **acoustic)


def conditions(folder: Path, split: str) -> Conditions:
    """Return the MuLan tokens of a split; arguments and errors as for `codes`."""
    corpus, clips = _clips(folder, split)
    return Conditions(**_cached(corpus, split, "mulan", lambda: mulan_tokens(folder, clips)))


@torch.no_grad()
def semantic_tokens(folder: Path, clips: Sequence[Clip]) -> dict[str, Tensor]:
    """Return `starts` and `semantic` of `Codes`."""
    from musicrl import semantic

    tokenizer = semantic.load()
    made: list[Tensor] = []
    paths = stored.prepare(folder, [clip.file_name for clip in clips])
    with progress("semantic tokens", len(paths)) as bar:
        for path in paths:
            made.append(tokenizer.encode_frames(_frames(path))[0].T.short())
            bar.advance(1)
    lengths = torch.tensor([0, *(len(one) for one in made)])
    return {"starts": lengths.cumsum(0), "semantic": torch.cat(made)}


@torch.no_grad()
def acoustic_tokens(corpus: Corpus, clips: Sequence[Clip], lengths: Tensor) -> dict[str, Tensor]:
    """Return `acoustic` of `Codes`, two frames for each of the 25 Hz `lengths` [clips]."""
    from musicrl import codec

    model = codec.load()
    made: list[Tensor] = []
    with progress("acoustic tokens", len(clips)) as bar:
        for part in torch.arange(len(clips)).split(_BATCH):
            audio = [corpus.audio(clips[i]) for i in part.tolist()]
            longest = max(len(one) for one in audio)
            batch = model.encode(torch.stack([F.pad(one, (0, longest - len(one))) for one in audio]))
            made += [one[:, : 2 * n].T.short() for one, n in zip(batch, lengths[part].tolist(), strict=True)]
            bar.advance(len(part))
    return {"acoustic": torch.cat(made)}


@torch.no_grad()
def mulan_tokens(folder: Path, clips: Sequence[Clip]) -> dict[str, Tensor]:
    """Return the fields of `Conditions`."""
    from musicrl import mulan
    from musicrl.mulan.train import gather

    model = mulan.load()
    paths = stored.prepare(folder, [clip.file_name for clip in clips])
    with progress("MuLan tokens", len(paths)) as bar:
        audio: list[Tensor] = []
        for path in paths:
            audio.append(model.tokens(model.embed_frames(_frames(path))))
            bar.advance(1)
    texts = gather(
        [list(clip.captions.values()) for clip in clips],
        [clip.attributes for clip in clips],
        [(prompt.text, prompt.attributes) for prompt in prompts.load("train")],
    )
    said = model.tokens(model.embed_states(texts.states)).short()
    most = max(len(own) for own in texts.of_clip)
    captions = [[own[i % len(own)] for i in range(most)] for own in texts.of_clip]
    generator = torch.Generator().manual_seed(0)
    true = [
        [found[i % len(found)] for i in torch.randperm(max(len(found), _PROMPTS), generator=generator)[:_PROMPTS]]
        for found in (own or captions[i] for i, own in enumerate(texts.prompts_of_clip))
    ]
    return {
        "audio": torch.cat(audio).short(),
        "captions": said[torch.tensor(captions)],
        "prompts": said[torch.tensor(true)],
    }


def _clips(folder: Path, split: str) -> tuple[Corpus, list[Clip]]:
    corpus = Corpus(folder)
    listed = corpus.rows(split)
    clips = [clip for clip in listed if corpus.seconds(clip) >= _SHORTEST_SECONDS]
    if len(clips) < len(listed):
        _log.warning(
            "%d of %d %s clips are shorter than %g s and are left out",
            len(listed) - len(clips),
            len(listed),
            split,
            _SHORTEST_SECONDS,
        )
    if not clips:
        raise UserError(
            f"{folder} has no {split} clips of at least {_SHORTEST_SECONDS:g} s; give a corpus with a {split} split"
        )
    return corpus, clips


def _frames(path: Path) -> Tensor:
    return torch.from_numpy(stored.load(path).copy()).float()[None]


def _cached(corpus: Corpus, split: str, part: str, encode: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    digest = hashlib.sha256(weights.read(part)[0]["sha256"].encode())
    digest.update(corpus.digest().encode())
    if part == "mulan":
        digest.update("".join(prompt.text for prompt in prompts.load("train")).encode())
    path = corpus.path / ".tokens" / f"{split}-{part}-{digest.hexdigest()[:16]}.safetensors"
    if path.is_file():
        try:
            return load_file(path)
        except SafetensorError:
            path.unlink()
    made = encode()
    path.parent.mkdir(exist_ok=True)
    temporary = path.with_suffix(".tmp")
    files.write_tensors(temporary, made)
    files.move(temporary, path)
    return made
