from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from musicrl.audio import io
from musicrl.errors import UserError


def sine(hz: float, rate: int, seconds: float = 0.5) -> torch.Tensor:
    return 0.5 * torch.sin(2 * torch.pi * hz * torch.arange(int(rate * seconds)) / rate)


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".WAV"])
def test_write_then_read_is_exact_to_16_bits(tmp_path: Path, suffix: str) -> None:
    audio = sine(440, 24_000)
    path = tmp_path / "new folder" / f"clip{suffix}"
    io.write(path, audio, 24_000)
    assert soundfile.info(str(path)).subtype == "PCM_16"
    assert (io.read(path) - audio).abs().max() <= 1 / 32768
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    (tmp_path / "plain").touch()
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_samples_beyond_full_scale_are_clipped_not_wrapped(tmp_path: Path) -> None:
    io.write(tmp_path / "a.wav", torch.tensor([2.0, -2.0, 0.0]), 24_000)
    assert io.read(tmp_path / "a.wav").tolist() == pytest.approx([1.0, -1.0, 0.0], abs=1e-4)


def test_stereo_is_averaged_and_resampled(tmp_path: Path) -> None:
    left = sine(440, 48_000).numpy()
    soundfile.write(tmp_path / "a.wav", np.stack([left, np.zeros_like(left)], 1), 48_000, subtype="FLOAT")
    audio = io.read(tmp_path / "a.wav", 24_000)
    assert audio.shape == (12_000,)
    middle = slice(1000, -1000)
    assert (audio - 0.5 * sine(440, 24_000))[middle].abs().max() < 1e-3


@pytest.mark.parametrize(("source", "target"), [(24_000, 16_000), (16_000, 24_000), (44_100, 24_000)])
def test_resample_keeps_a_tone_and_the_shape(source: int, target: int) -> None:
    audio = torch.stack([sine(1000, source), -sine(1000, source)]).reshape(2, 1, -1)
    result = io.resample(audio, source, target)
    assert result.shape == (2, 1, target // 2)
    middle = slice(1000, -1000)
    assert (result[0, 0] - sine(1000, target))[middle].abs().max() < 1e-3
    assert torch.equal(result[0], -result[1])


def test_unreadable_files_are_named_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nothing\.wav: there is no such file"):
        io.read(tmp_path / "nothing.wav")
    (tmp_path / "text.wav").write_text("not audio")
    with pytest.raises(UserError, match=r"cannot read audio from .*text\.wav"):
        io.read(tmp_path / "text.wav")
    soundfile.write(tmp_path / "empty.wav", np.zeros(0), 24_000)
    with pytest.raises(UserError, match="no audio samples"):
        io.read(tmp_path / "empty.wav")
    soundfile.write(tmp_path / "nan.wav", np.array([0.0, np.nan]), 24_000, subtype="FLOAT")
    with pytest.raises(UserError, match="not finite"):
        io.read(tmp_path / "nan.wav")


def test_write_refuses_what_it_cannot_keep(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"\.wav or \.flac"):
        io.write(tmp_path / "a.mp3", torch.zeros(10), 24_000)
    with pytest.raises(ValueError, match="finite"):
        io.write(tmp_path / "a.wav", torch.tensor([float("nan")]), 24_000)
    with pytest.raises(ValueError, match=r"\[N\]"):
        io.write(tmp_path / "a.wav", torch.zeros(1, 10), 24_000)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        io.write(tmp_path / "file" / "a.wav", torch.zeros(10), 24_000)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("suffix", ["wav", "flac"])
def test_a_disk_that_fills_up_while_writing_is_a_sentence(tmp_path: Path, suffix: str) -> None:
    # A limit on the size of files fails as a full disk does: half way, in the middle of a write.
    program = (
        "import resource, torch\nfrom musicrl.audio import io\nfrom musicrl.errors import UserError\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
        f"try:\n    io.write({str(tmp_path / ('a.' + suffix))!r}, torch.rand(48_000) - 0.5, 24_000)\n"
        "except UserError as error:\n    print('said:', error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert "said: cannot write" in done.stdout
    assert done.stderr == ""
    assert not list(tmp_path.iterdir())
