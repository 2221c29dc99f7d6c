"""What `musicrl doctor` finds on this machine."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from musicrl import __version__
from musicrl.errors import UserError

PARTS = ("codec", "semantic", "mulan", "tagger", "musiclm", "fine")
"""Weights that generation, feedback and finetuning cannot do without."""

FINETUNED = ("r", "u", "ru")
"""Models that `--model` names; everything else works without them."""

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        name: what was looked for.
        ok: whether it is there and whole.
        detail: what was found, or what is wrong.
        mend: how to get it, when it is missing and the detail does not say so.
        optional: whether musicrl generates, serves and finetunes without it.
    """

    name: str
    ok: bool
    detail: str
    mend: str = ""
    optional: bool = False


def examine() -> list[Finding]:
    """Return what is here and what is missing: hardware, embedded weights, optional programs."""
    return [*_machine(), *_weights(), *_programs()]


def report(findings: Sequence[Finding]) -> str:
    """Return findings as text, one a line, missing ones with their mend."""
    width = max(len(finding.name) for finding in findings)
    lines: list[str] = []
    for finding in findings:
        mark = "ok" if finding.ok else "--" if finding.optional else "!!"
        lines.append(f"{mark}  {finding.name:{width}}  {finding.detail}")
        if not finding.ok and finding.mend:
            lines.append(f"{'':{width + 6}}{finding.mend}")
    return "\n".join(lines)


def _machine() -> Iterator[Finding]:
    import torch

    from musicrl import devices

    yield Finding("musicrl", True, __version__)
    yield Finding("python", True, f"{platform.python_version()} on {platform.system()} {platform.machine()}")
    yield Finding("torch", True, torch.__version__)
    device = devices.pick()
    yield Finding("device", True, torch.cuda.get_device_name(device) if device.type == "cuda" else device.type)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    yield Finding("cores", True, str(cores))
    yield Finding("bf16 matrix units", True, "yes" if devices.cpu_has_bf16_matrix_units() else "no, float32 is used")
    gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    yield Finding(
        "memory", gib >= 6, f"{gib:.1f} GiB", "the quickstart needs 6 GiB; generate alone needs 1.5", optional=True
    )


def _weights() -> Iterator[Finding]:
    from musicrl import weights

    there = {path.parent.name for path in weights.embedded(".").glob(f"*/{weights.CONFIG}")}
    known = (*PARTS, *FINETUNED)
    for part in (*known, *sorted(there - set(known))):
        try:
            _, tensors = weights.read(part)
        except UserError as error:
            yield Finding(f"weights {part}", False, str(error), optional=part not in PARTS)
        else:
            millions = sum(tensor.numel() for tensor in tensors.values()) / 1e6
            yield Finding(f"weights {part}", True, f"{millions:.1f} M values, checksum matches")


def _programs() -> Iterator[Finding]:
    from musicrl.config import CorpusConfig
    from musicrl.corpus.render import find_soundfonts

    for name, programs, use in (
        ("mma", ("mma",), "`musicrl corpus build`"),
        ("fluidsynth", ("fluidsynth",), "`musicrl corpus build`"),
        ("chromium", BROWSERS, "the browser test"),
    ):
        path = next(filter(None, map(shutil.which, programs)), None)
        yield Finding(
            name, path is not None, path or "missing", f"{use} needs it: apt-get install {name}", optional=True
        )
    for name in CorpusConfig().soundfonts:
        try:
            path = find_soundfonts((name,), None)[Path(name).stem]
        except UserError as error:
            yield Finding(f"soundfont {name}", False, str(error), optional=True)
        else:
            yield Finding(f"soundfont {name}", True, str(path))
