"""Which device and which arithmetic a run uses."""

from __future__ import annotations

import os
import resource
import sys
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache

import torch


def pick() -> torch.device:
    """Return the best device there is: CUDA or the CPU."""
    # Apple's MPS is left out: it has no float64, which the sampler draws in.
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@lru_cache(maxsize=1)
def cpu_has_bf16_matrix_units() -> bool:
    """Return whether bf16 matrix products are faster than fp32 ones on this CPU (AMX, AVX-512 BF16 or Arm BF16)."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as f:
            words = set(f.read().split())
    except OSError:
        return False
    return bool({"amx_bf16", "avx512_bf16", "bf16"} & words)


def autocast(device: torch.device, enabled: bool = True) -> AbstractContextManager[object]:
    """Return a bf16 autocast context where the device gains from it, else a context that does nothing."""
    if not enabled:
        return nullcontext()
    if device.type == "cuda" or (device.type == "cpu" and cpu_has_bf16_matrix_units()):
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return nullcontext()


def set_threads() -> None:
    """Use every core this process may run on, no more (containers report the host's cores)."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    torch.set_num_threads(max(1, cores))


def peak_rss_mb() -> float:
    """Return the most memory this process has held, MB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # macOS counts bytes, Linux kibibytes.
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10
