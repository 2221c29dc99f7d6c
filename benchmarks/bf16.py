"""bfloat16 autocast against float32 on this CPU: a training step of MusicLM, and sampling 64 clips.

python benchmarks/bf16.py [--quick]
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable

import torch

from musicrl import devices
from musicrl.musiclm.model import MusicLM, Shape
from musicrl.musiclm.sampler import sample
from musicrl.musiclm.train import nats

CROPS, FRAMES, CLIPS = 16, 250, 64


def in_turn(sides: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Return the median seconds of each side, run alternately after one warm-up."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(repeats + 1):
        for name, run in sides.items():
            start = time.perf_counter()
            run()
            if turn:
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(times) for name, times in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    repeats, frames = (2, 25) if parser.parse_args().quick else (5, 125)
    devices.set_threads()
    torch.manual_seed(0)
    model = MusicLM(Shape())
    codes = torch.randint(0, 1024, (CROPS, 4, FRAMES))
    condition = torch.randint(0, 1024, (CROPS, 12))
    types = {"bf16": torch.bfloat16, "fp32": torch.float32}

    def loss(dtype: torch.dtype) -> torch.Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
            return nats(model, codes, condition, 1 / 3, torch.Generator().manual_seed(0)).mean()

    def step(dtype: torch.dtype) -> None:
        model.zero_grad()
        loss(dtype).backward()

    def draw(dtype: torch.dtype) -> None:
        generator = torch.Generator().manual_seed(0)
        sample(model, condition[: CLIPS // 8], frames, group_size=8, generator=generator, dtype=dtype)

    with torch.no_grad():
        both = {name: float(loss(dtype)) for name, dtype in types.items()}
    assert abs(both["bf16"] - both["fp32"]) < 0.01 * both["fp32"], both
    for name, work in (("train", step), ("sample", draw)):
        found = in_turn({side: lambda dtype=dtype, work=work: work(dtype) for side, dtype in types.items()}, repeats)
        line = {
            "name": f"bf16 {name}",
            "ratio": round(found["fp32"] / found["bf16"], 2),
            "ours": round(found["bf16"], 3),
            "peer": round(found["fp32"], 3),
            "unit": "s",
            "n": repeats,
            "threads": torch.get_num_threads(),
            "dtype": "bfloat16 against float32",
            "versions": {"python": platform.python_version(), "torch": torch.__version__},
        }
        print(json.dumps(line))


if __name__ == "__main__":
    main()
