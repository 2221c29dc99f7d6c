"""Training of the codec in three phases: autoencoder, quantized, adversarial."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from musicrl import weights
from musicrl.codec.codebooks import MovingAverages, initialise
from musicrl.codec.discriminator import Discriminators, discriminator_loss, generator_losses
from musicrl.codec.losses import reconstruction
from musicrl.codec.measure import compare, measure
from musicrl.codec.model import Codec
from musicrl.codec.quantizer import PREFIX_WEIGHTS, PREFIXES, commitment, straight_through
from musicrl.config import CodecConfig
from musicrl.corpus.dataset import SAMPLE_RATE, Corpus
from musicrl.devices import autocast
from musicrl.fitting import card
from musicrl.runs import Checkpoint, Run, finite, interruptible, open_run, pack, progress, unpack

COMMITMENT = 0.5
ADVERSARIAL = 0.05
MATCHING = 0.3
CRITIC_LEARNING_RATE = 3e-4
AVERAGE = 0.995
KMEANS_VECTORS = 16
"""Latents gathered for the start of the codebooks, per entry."""


def build(config: CodecConfig) -> Codec:
    """Return an untrained codec, seeded by the settings."""
    torch.manual_seed(config.seed)
    return Codec(**architecture(config))


def architecture(config: CodecConfig) -> dict[str, int]:
    """Return the arguments of `Codec` that the settings decide."""
    names = ("width", "encoder_blocks", "decoder_blocks", "output_blocks", "latent_dim", "codebook_size")
    return {name: getattr(config, name) for name in names}


def train(config: CodecConfig, corpus: Path | str, run_path: Path | str, resume: bool = False) -> Codec:
    """Train a codec on the train split of a corpus.

    All randomness of a step comes from generators seeded by (seed, step), so a run resumed from any checkpoint repeats
    the uninterrupted one bit for bit.

    Args:
        config: settings.
        corpus: corpus folder.
        run_path: run folder for metrics and checkpoints.
        resume: continue the run that is there.

    Returns:
        The codec with averaged weights as stored in `run_path`/model, on the CPU, in evaluation mode.

    Raises:
        UserError: the corpus cannot be read, the run folder cannot be used, or Ctrl-C was pressed (all is saved).
    """
    data = Corpus(corpus)
    with open_run(Path(run_path), "codec", config, resume=resume, inputs={"corpus": data.digest()}) as run:
        state = Training(config)
        checkpoint = run.latest()
        if checkpoint is not None:
            state.restore(checkpoint)
        first = state.step
        with progress("codec", config.steps) as bar, interruptible() as stop:
            bar.advance(first)
            while state.step < config.steps:
                figures = state.advance(data)
                run.log(state.step, **figures)
                bar.update(**{name: figures[name] for name in ("loss", "mel", "used") if name in figures})
                bar.advance(1)
                if stop():
                    state.save(run)
                    raise run.interrupted(state.step)
                if run.due(config.checkpoint_minutes):
                    state.save(run)
        if first < config.steps:
            state.save(run)
        codec = state.averaged()
        stored = rounded(codec)
        figures = {"steps skipped": state.skipped, **measure(stored, data), **compare(codec, stored, data)}
        rows = data.rows("train")
        text = card(
            "Codec",
            "Neural audio codec: 24 kHz mono to 12 codes of 1,024 at 50 Hz (6 kbps) and back. The encoder sees log-mel"
            " magnitudes only; the decoder makes up a phase. Any prefix of levels can be decoded.",
            part="codec",
            data=f"{len(rows)} training clips, {sum(len(data.audio(row)) for row in rows) / SAMPLE_RATE / 3600:.1f} h",
            config=config,
            seconds=state.seconds,
            figures=figures,
        )
        weights.write(run.path / "model", {"architecture": architecture(config)}, stored.state_dict(), text)
        return stored


def rounded(codec: Codec) -> Codec:
    """Return a codec whose weights have the precision they are stored in (bf16)."""
    copy = deepcopy(codec)
    copy.load_state_dict({name: tensor.bfloat16().float() for name, tensor in codec.state_dict().items()})
    return copy.eval()


class Training:
    """Everything a step changes, and the step.

    Attributes:
        step: steps done.
        skipped: steps left out because loss or gradient was not finite.
        seconds: time spent in steps, over interruptions.
    """

    def __init__(self, config: CodecConfig) -> None:
        self.config = config
        self.codec = build(config).train()
        self.discriminators = Discriminators()
        self.averages = {name: p.detach().clone() for name, p in self.codec.named_parameters()}
        self.codebooks = MovingAverages(self.codec.quantizer)
        self.optimizer = _optimizer(self.codec, config.learning_rate)
        self.critic_optimizer = _optimizer(self.discriminators, CRITIC_LEARNING_RATE)
        self.step, self.skipped, self.seconds = 0, 0, 0.0
        self._device = torch.device("cpu")

    def advance(self, data: Corpus) -> dict[str, float]:
        """Do one step on random crops and return its figures."""
        started = time.monotonic()
        config, step = self.config, self.step
        if step == config.autoencoder_steps:
            self._start_codebooks(data)
        audio = _draw(data, config, step)
        generator = torch.Generator().manual_seed(config.seed * 1_000_003 + step)
        for group in self.optimizer.param_groups:
            group["lr"] = config.learning_rate * _schedule(step, config.steps)
        figures = self._update(audio, generator)
        self.step += 1
        self.seconds += time.monotonic() - started
        return {**figures, "skipped": self.skipped, "seconds": time.monotonic() - started}

    def _update(self, audio: Tensor, generator: torch.Generator) -> dict[str, float]:
        config = self.config
        with autocast(self._device):
            latents = self.codec.latents(audio)
        quantized, committed = latents, latents.new_zeros(())
        codes = sums = None
        if self.step >= config.autoencoder_steps:
            codes, sums = self.codec.quantizer.quantize(latents)
            drawn = torch.multinomial(torch.tensor(PREFIX_WEIGHTS), len(audio), replacement=True, generator=generator)
            levels = torch.tensor(PREFIXES)[drawn]
            quantized = straight_through(latents, sums, levels)
            committed = commitment(latents, sums, levels)
        with autocast(self._device):
            decoded = self.codec.synthesize(quantized)
        terms = reconstruction(decoded, audio, self.codec.sample_rate)
        loss = terms["mel"] + 0.5 * terms["magnitude"] + terms["turning"] + COMMITMENT * committed
        extra: dict[str, float] = {"commitment": float(committed.detach())}
        if self.step >= config.steps - config.adversarial_steps:
            # Half of the crops: the discriminators cost as much as the codec.
            half = max(1, len(audio) // 2)
            extra["critic"], real = self._update_discriminators(audio[:half], decoded[:half].detach())
            with autocast(self._device):
                fake = self.discriminators(decoded[:half])
            adversarial, matching = generator_losses(real, fake)
            loss = loss + ADVERSARIAL * adversarial + MATCHING * matching
            extra["adversarial"], extra["matching"] = float(adversarial.detach()), float(matching.detach())
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.codec.parameters(), 1.0)
        if finite(loss, norm):
            self.optimizer.step()
            self._average()
            if codes is not None and sums is not None:
                extra["replaced"] = self.codebooks.update(latents, codes, sums, generator)
                extra["used"] = float((self.codebooks.counts > 0.1).float().mean())
        else:
            self.skipped += 1
        figures = {name: float(term.detach()) for name, term in terms.items()}
        return {"loss": float(loss.detach()), **figures, **extra, "norm": float(norm)}

    def _update_discriminators(self, audio: Tensor, decoded: Tensor) -> tuple[float, list[list[Tensor]]]:
        """Step the discriminators; return their loss and what they made of the real clips."""
        with autocast(self._device):
            both = self.discriminators(torch.cat([audio, decoded]))
        real = [[layer[: len(audio)] for layer in member] for member in both]
        fake = [[layer[len(audio) :] for layer in member] for member in both]
        loss = discriminator_loss(real, fake)
        self.critic_optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.discriminators.parameters(), 1.0)
        if finite(loss, norm):
            self.critic_optimizer.step()
        return float(loss.detach()), [[layer.detach() for layer in member] for member in real]

    @torch.no_grad()
    def _start_codebooks(self, data: Corpus) -> None:
        config = self.config
        wanted = KMEANS_VECTORS * config.codebook_size
        latents: list[Tensor] = []
        count = 0
        while count < wanted:
            # Steps beyond the last one seed crops that no training step draws.
            batch = self.codec.latents(_draw(data, config, config.steps + len(latents))).flatten(0, 1)
            latents.append(batch)
            count += len(batch)
        initialise(self.codec.quantizer, torch.cat(latents), torch.Generator().manual_seed(config.seed))
        self.codebooks = MovingAverages(self.codec.quantizer)

    @torch.no_grad()
    def _average(self) -> None:
        decay = min(AVERAGE, (1 + self.step) / (10 + self.step))
        for name, parameter in self.codec.named_parameters():
            self.averages[name].lerp_(parameter, 1.0 - decay)

    def averaged(self) -> Codec:
        """Return a codec with the averaged weights and the codebooks, in evaluation mode."""
        codec = build(self.config)
        codec.load_state_dict({**self.codec.state_dict(), **self.averages})
        return codec.eval()

    def save(self, run: Run) -> None:
        """Write a checkpoint."""
        tensors, state = pack(optimizer={"codec": self.optimizer, "critic": self.critic_optimizer})
        tensors |= {f"{group}.{name}": t for group, named in self._tensors().items() for name, t in named.items()}
        run.save(self.step, tensors, {**state, "skipped": self.skipped, "seconds": self.seconds})

    def restore(self, checkpoint: Checkpoint) -> None:
        """Put back, bit for bit, what `save` wrote."""
        unpack(
            checkpoint.tensors,
            checkpoint.state,
            optimizer={"codec": self.optimizer, "critic": self.critic_optimizer},
        )
        for group, named in self._tensors().items():
            for name, tensor in named.items():
                tensor.copy_(checkpoint.tensors[f"{group}.{name}"])
        self.step = checkpoint.step
        self.skipped, self.seconds = checkpoint.state["skipped"], checkpoint.state["seconds"]

    def _tensors(self) -> Mapping[str, Mapping[str, Tensor]]:
        return {
            "codec": self.codec.state_dict(),
            "discriminators": self.discriminators.state_dict(),
            "average": self.averages,
            "codebooks": {"counts": self.codebooks.counts, "sums": self.codebooks.sums},
        }


def _draw(data: Corpus, config: CodecConfig, step: int) -> Tensor:
    """Return the crops of a step [B, N], each at a level of its own within 4 dB of the corpus'."""
    rng = np.random.default_rng([config.seed, step])
    audio, _ = data.crops("train", config.seconds, config.batch_size, rng)
    decibels = torch.from_numpy(rng.uniform(-4.0, 4.0, size=(len(audio), 1)).astype(np.float32))
    return audio * 10.0 ** (decibels / 20.0)


def _optimizer(module: nn.Module, learning_rate: float) -> torch.optim.AdamW:
    return torch.optim.AdamW(module.parameters(), lr=learning_rate, betas=(0.8, 0.98), weight_decay=0.01)


def _schedule(step: int, steps: int) -> float:
    warm = max(1, min(100, steps // 10))
    if step < warm:
        return (step + 1) / warm
    return 0.02 + 0.98 * 0.5 * (1.0 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))
