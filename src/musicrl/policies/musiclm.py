"""MusicLM as a policy: sampling, scoring, reference, decoding, saving."""

from __future__ import annotations

import copy
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from musicrl import musiclm, weights
from musicrl.errors import UserError
from musicrl.musiclm import MusicLM, layout
from musicrl.musiclm.sampler import sample, truncate
from musicrl.policies import lora
from musicrl.policies.protocol import Rollout, Sampler, TokenScores
from musicrl.policies.value import MusicLMValue


class MusicLMPolicy:
    """A MusicLM that can be finetuned; it implements `musicrl.policies.protocol.Policy`.

    The reference is the model it was made with: a finetuned model that is finetuned further is measured against itself,
    as MusicRL-RU is against MusicRL-R (MusicRL, section 4.2).
    """

    def __init__(
        self,
        model: MusicLM,
        condition: Callable[[Sequence[str]], Tensor],
        decoder: Callable[[Tensor], Tensor],
        *,
        trained_on: Mapping[str, str],
        base: str | None = None,
        start: Mapping[str, Tensor] | None = None,
        rank: int | None = 16,
        dtype: torch.dtype = torch.float32,
        sample_rate: int = 24_000,
    ) -> None:
        """Take over a model.

        Args:
            model: where to start from; it is changed in place.
            condition: from B prompts to MuLan tokens [B, R].
            decoder: from codes [B, K, T] to audio [B, N].
            trained_on: checksums of the parts whose tokens `model` was trained on; `save` keeps them.
            base: SHA-256 of the base weights, if `model` is the base or the base with `start` merged into it; `save`
                then writes an adapter. None lets it write all weights.
            start: `lora.scaled` adapter that was merged into `model`.
            rank: of the adapters to train; None trains every weight.
            dtype: of the matrix products in `sample` and `score` alike. In float32 their log-probabilities agree to
                1e-4; bfloat16 is several times faster where the hardware has units for it.
            sample_rate: Hz of the decoded audio.
        """
        self.sample_rate = sample_rate
        self.frame_rate = layout.FRAME_RATE
        self.num_codebooks = model.shape.num_codebooks
        self.codebook_size = model.shape.codebook_size
        self.device = model.trunk.start.device
        self.max_frames = model.shape.max_frames
        self._condition, self._decoder = condition, decoder
        self._base, self._trained_on, self._start = base, trained_on, dict(start or {})
        self._rank, self._dtype = rank, dtype
        self._frozen = copy.deepcopy(model).eval().requires_grad_(False) if rank is None else None
        self._model = model.eval().requires_grad_(True)
        if rank is not None:
            lora.inject(self._model, rank)
        self._at_reference = False

    def sample(
        self,
        prompts: Sequence[str],
        *,
        group_size: int = 1,
        seconds: float,
        sampler: Sampler,
        generator: torch.Generator,
    ) -> Rollout:
        """Draw `group_size` clips for each prompt; no gradient.

        Args:
            prompts: P texts.
            group_size: G.
            seconds: length of a clip, rounded to frames of 40 ms.
            sampler: how codes are drawn.
            generator: source of randomness.

        Raises:
            UserError: the clip would be longer than those the model was trained on.
        """
        frames = round(seconds * self.frame_rate)
        if not 0 < frames <= self.max_frames:
            raise UserError(
                f"{seconds:g} s cannot be sampled in one piece; give more than 0 and at most"
                f" {self.max_frames / self.frame_rate:g} s"
            )
        codes, logps = self._sample(prompts, group_size, frames, sampler, generator, None)
        repeated = tuple(prompt for prompt in prompts for _ in range(group_size))
        return Rollout(repeated, codes, logps, sampler, group_size)

    def extend(
        self, prompts: Sequence[str], codes: Tensor, frames: int, *, sampler: Sampler, generator: torch.Generator
    ) -> Tensor:
        """Return `frames` more frames [B, K, frames] for codes [B, K, T] of B prompts, T + frames <= `max_frames`."""
        return self._sample(prompts, 1, frames, sampler, generator, codes)[0]

    def score(self, prompts: Sequence[str], codes: Tensor, *, sampler: Sampler) -> TokenScores:
        """Score codes [B, K, T] of B prompts with teacher forcing; differentiable."""
        with torch.autocast(self.device.type, dtype=self._dtype, enabled=self._dtype != torch.float32):
            logits = self._acting()(codes, self._tokens(prompts))
        logits = truncate(logits, sampler.temperature, sampler.top_k)
        logps = logits.log_softmax(-1).gather(-1, codes[..., None])[..., 0]
        return TokenScores(logps, logits)

    @contextmanager
    def reference(self) -> Generator[None, None, None]:
        """Inside it, `score` and `sample` are the model this policy was made with."""
        before, self._at_reference = self._at_reference, True
        try:
            with lora.disabled(self._model):
                yield
        finally:
            self._at_reference = before

    def decode(self, codes: Tensor) -> Tensor:
        """Turn codes [B, K, T] into audio [B, N], N = T · 960; no gradient, the same codes give the same audio."""
        with torch.no_grad():
            return self._decoder(codes)

    def trainable_parameters(self) -> list[torch.nn.Parameter]:
        """Return the parameters that finetuning changes."""
        return [parameter for parameter in self._model.parameters() if parameter.requires_grad]

    def trainable_state(self) -> dict[str, Tensor]:
        """Return a copy of what finetuning changes: the adapter, or all weights."""
        if self._rank is not None:
            return lora.state(self._model)
        return {name: tensor.detach().clone() for name, tensor in self._model.state_dict().items()}

    def load_trainable_state(self, state: dict[str, Tensor]) -> None:
        """Fill in what `trainable_state` returned.

        Raises:
            UserError: it is of another architecture or rank; the message names both shapes.
        """
        if self._rank is not None:
            lora.load_state(self._model, state)
        else:
            musiclm.load_into(self._model, state, "of the checkpoint")

    def value_network(self) -> MusicLMValue:
        """Return a new value network initialised from the model this policy was made with."""
        trunk = copy.deepcopy(self._model.trunk if self._frozen is None else self._frozen.trunk)
        lora.remove(trunk)
        return MusicLMValue(trunk, self._tokens, rank=self._rank, dtype=self._dtype)

    def save(self, path: Path, card: str) -> None:
        """Write an adapter, or all weights where the base is not the one that ships or all were trained.

        `musicrl.policies.load` reads either.

        Raises:
            UserError: the folder cannot be written.
        """
        adapter = lora.scaled(lora.state(self._model))
        if self._rank is not None and self._base is not None:
            weights.write(path, {"kind": "adapter", "base": self._base}, lora.stack(self._start, adapter), card)
            return
        whole = copy.deepcopy(self._model)
        lora.remove(whole)
        lora.merge(whole, adapter)
        musiclm.save(whole, path, card, trained_on=self._trained_on)

    def _sample(
        self,
        prompts: Sequence[str],
        group_size: int,
        frames: int,
        sampler: Sampler,
        generator: torch.Generator,
        prefix: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        return sample(
            self._acting(),
            self._tokens(prompts),
            frames,
            group_size=group_size,
            temperature=sampler.temperature,
            top_k=sampler.top_k,
            generator=generator,
            dtype=self._dtype,
            prefix=prefix,
        )

    def _acting(self) -> MusicLM:
        return self._frozen if self._at_reference and self._frozen is not None else self._model

    def _tokens(self, prompts: Sequence[str]) -> Tensor:
        return self._condition(prompts).to(self.device)
