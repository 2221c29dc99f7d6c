"""A policy small enough to enumerate: a table of logits for each prompt, place and previous code."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from musicrl.policies.protocol import Policy, Rollout, Sampler, TokenScores, ValueNetwork


class TableValue:
    """One number for a prompt and frame, plus one for each code of the frame before."""

    def __init__(self, prompts: Sequence[str], frames: int, size: int) -> None:
        self.prompts = list(prompts)
        self.bias = nn.Parameter(torch.zeros(len(prompts), frames))
        self.codes = nn.Parameter(torch.zeros(size))

    def __call__(self, prompts: Sequence[str], codes: Tensor) -> Tensor:
        rows = torch.tensor([self.prompts.index(prompt) for prompt in prompts])
        before = self.codes[codes].sum(dim=1).roll(1, dims=1)
        before = torch.cat([torch.zeros_like(before[:, :1]), before[:, 1:]], dim=1)
        return (self.bias[rows, : codes.shape[2]] + before)[:, None].expand(codes.shape)

    def parameters(self) -> Iterable[nn.Parameter]:
        return [self.bias, self.codes]

    def state_dict(self) -> dict[str, Tensor]:
        return {"bias": self.bias.detach().clone(), "codes": self.codes.detach().clone()}

    def load_state_dict(self, state: dict[str, Tensor]) -> object:
        with torch.no_grad():
            self.bias.copy_(state["bias"])
            self.codes.copy_(state["codes"])
        return None


class TablePolicy:
    """Codes in the order frame by frame, codebook by codebook; the adapter is a second table, added to the base."""

    sample_rate = 1000
    frame_rate = 10.0

    def __init__(self, prompts: Sequence[str], codebooks: int, frames: int, size: int, spread: float) -> None:
        self.prompts = list(prompts)
        self.num_codebooks = codebooks
        self.codebook_size = size
        self.device = torch.device("cpu")
        self.frames = frames
        shape = (len(prompts), frames * codebooks, size + 1, size)
        self.base = spread * torch.randn(shape, generator=torch.Generator().manual_seed(0))
        self.adapter = nn.Parameter(torch.zeros(shape))
        self.decoded = 0
        self._on = True

    def _logits(self, prompts: Sequence[str], previous: Tensor, place: Tensor) -> Tensor:
        rows = torch.tensor([self.prompts.index(prompt) for prompt in prompts])[:, None]
        table = self.base + self.adapter if self._on else self.base
        return table[rows, place[None], previous]

    def sample(
        self,
        prompts: Sequence[str],
        *,
        group_size: int = 1,
        seconds: float,
        sampler: Sampler,
        generator: torch.Generator,
    ) -> Rollout:
        repeated = tuple(prompt for prompt in prompts for _ in range(group_size))
        frames = round(seconds * self.frame_rate)
        previous = torch.full((len(repeated), 1), self.codebook_size)
        codes: list[Tensor] = []
        logps: list[Tensor] = []
        with torch.no_grad():
            for place in range(frames * self.num_codebooks):
                logits = self._logits(repeated, previous, torch.tensor([place]))[:, 0] / sampler.temperature
                log_probs = logits.log_softmax(dim=-1)
                previous = torch.multinomial(log_probs.exp(), 1, generator=generator)
                codes.append(previous)
                logps.append(log_probs.gather(1, previous))
        return Rollout(repeated, self._fold(torch.cat(codes, 1)), self._fold(torch.cat(logps, 1)), sampler, group_size)

    def _fold(self, flat: Tensor) -> Tensor:
        return flat.unflatten(1, (-1, self.num_codebooks)).transpose(1, 2)

    def score(self, prompts: Sequence[str], codes: Tensor, *, sampler: Sampler) -> TokenScores:
        flat = codes.transpose(1, 2).flatten(1)
        start = torch.full_like(flat[:, :1], self.codebook_size)
        previous = torch.cat([start, flat[:, :-1]], dim=1)
        logits = self._logits(prompts, previous, torch.arange(flat.shape[1])) / sampler.temperature
        logits = self._fold(logits)
        logps = logits.log_softmax(dim=-1).gather(-1, codes[..., None])[..., 0]
        return TokenScores(logps=logps, logits=logits)

    @contextmanager
    def reference(self) -> Iterator[None]:
        self._on = False
        try:
            yield
        finally:
            self._on = True

    def decode(self, codes: Tensor) -> Tensor:
        self.decoded += codes.shape[0]
        level = codes.float().mean(dim=1) / self.codebook_size
        return level.repeat_interleave(int(self.sample_rate / self.frame_rate), dim=1)

    def trainable_parameters(self) -> list[nn.Parameter]:
        return [self.adapter]

    def trainable_state(self) -> dict[str, Tensor]:
        return {"adapter": self.adapter.detach().clone()}

    def load_trainable_state(self, state: dict[str, Tensor]) -> None:
        with torch.no_grad():
            self.adapter.copy_(state["adapter"])

    def value_network(self) -> ValueNetwork:
        return TableValue(self.prompts, self.frames, self.codebook_size)

    def save(self, path: Path, card: str) -> None:
        raise NotImplementedError


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Tensors this small lose more to waiting for a second thread than it gives."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def make_policy() -> Callable[..., TablePolicy]:
    """Build a policy; by default 3 prompts, K = 2, T = 3, V = 4."""

    def make(
        prompts: Sequence[str] = ("0", "1", "2"),
        codebooks: int = 2,
        frames: int = 3,
        size: int = 4,
        spread: float = 0.5,
    ) -> TablePolicy:
        policy = TablePolicy(prompts, codebooks, frames, size, spread)
        assert isinstance(policy, Policy)
        return policy

    return make
