from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from musicrl import files, weights
from musicrl.errors import UserError


def model(value: float = 1.0) -> dict[str, torch.Tensor]:
    return {"weight": torch.full((3, 2), value), "codes": torch.arange(5)}


def test_what_is_written_is_read_in_float32_rounded_to_its_type(tmp_path: Path) -> None:
    exact = torch.tensor([1.0, 1.0 + 2**-10])
    weights.write(tmp_path / "m", {"width": 3}, {"weight": exact, "codes": torch.arange(5)}, "# card\n")
    config, tensors = weights.read(tmp_path / "m")
    assert config["width"] == 3
    assert config["dtype"] == "bfloat16"
    assert config["sha256"] == files.sha256(tmp_path / "m" / "model.safetensors")
    assert tensors["weight"].dtype == torch.float32
    assert tensors["weight"].tolist() == [1.0, 1.0]  # bfloat16 has 8 bits of precision
    assert torch.equal(tensors["codes"], torch.arange(5))
    assert (tmp_path / "m" / "README.md").read_text() == "# card\n"


def test_float32_is_kept_whole(tmp_path: Path) -> None:
    tensor = torch.randn(100, generator=torch.Generator().manual_seed(0))
    weights.write(tmp_path / "m", {}, {"weight": tensor}, "", dtype=torch.float32)
    assert torch.equal(weights.read(str(tmp_path / "m"))[1]["weight"], tensor)


def test_an_embedded_part_is_found_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "embedded", lambda part: tmp_path / part)
    weights.write(tmp_path / "codec", {"width": 5}, model(), "")
    assert weights.read("codec")[0]["width"] == 5


def test_missing_weights_say_how_to_get_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "embedded", lambda part: tmp_path / part)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"no weights for 'codec' at .*; train them with `musicrl pretrain codec`"):
        weights.read("codec")
    with pytest.raises(UserError, match=r"`musicrl reward train quality`"):
        weights.read("quality")
    with pytest.raises(UserError, match=r"no weights at .*nowhere: config.json is missing"):
        weights.read(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("model.safetensors", b"flip", "SHA-256"),
        ("model.safetensors", b"", "SHA-256"),
        ("model.safetensors", None, "cannot be read"),
        ("config.json", b"{", "cannot be read"),
        ("config.json", b"\xff", "cannot be read"),
        ("config.json", b"{}", "names no sha256"),
        ("config.json", b"[]", "names no sha256"),
    ],
)
def test_corrupt_weights_are_refused(tmp_path: Path, file: str, content: bytes | None, words: str) -> None:
    weights.write(tmp_path / "m", {}, model(), "")
    path = tmp_path / "m" / file
    if content is None:
        path.unlink()
    elif content == b"flip":
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data)
    else:
        path.write_bytes(content)
    with pytest.raises(UserError, match=words) as error:
        weights.read(tmp_path / "m")
    assert str(path) in str(error.value)


def test_a_file_with_the_right_sum_that_is_no_safetensors_is_refused(tmp_path: Path) -> None:
    weights.write(tmp_path / "m", {}, model(), "")
    path = tmp_path / "m" / "model.safetensors"
    path.write_bytes(b"not tensors")
    (tmp_path / "m" / "config.json").write_text(json.dumps({"sha256": files.sha256(path)}))
    with pytest.raises(UserError, match="are not safetensors"):
        weights.read(tmp_path / "m")


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(tmp_path: Path, bad: float) -> None:
    weights.write(tmp_path / "m", {}, {"layer": torch.tensor([0.0, bad])}, "")
    with pytest.raises(UserError, match="NaN or infinity in 'layer'"):
        weights.read(tmp_path / "m")


@pytest.mark.parametrize(
    ("owner", "name"), [(files, "write_tensors"), (files, "write_bytes"), (os, "replace"), (os, "fsync")]
)
def test_a_full_disk_leaves_the_old_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: object, name: str
) -> None:
    real: Callable[..., object] = getattr(owner, name)
    failures = 0
    for fail_at in range(1, 20):
        calls = 0

        def full(*args: object, **kwargs: object) -> object:
            nonlocal calls
            calls += 1
            if calls == fail_at:  # noqa: B023
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return real(*args, **kwargs)

        path = tmp_path / str(fail_at) / "m"
        weights.write(path, {"version": 1}, model(1.0), "")
        monkeypatch.setattr(owner, name, full)
        try:
            weights.write(path, {"version": 2}, model(2.0), "")
        except UserError as error:
            failures += 1
            assert "No space left on device" in str(error)
        else:
            break
        finally:
            monkeypatch.setattr(owner, name, real)
        config, tensors = weights.read(path)
        assert float(tensors["weight"][0, 0]) == config["version"]
        assert [other.name for other in path.parent.iterdir()] == ["m"]
    assert failures == calls
    assert failures > 0


def test_embedded_weights_that_are_there_verify() -> None:
    parts = sorted(path.parent.name for path in weights.embedded(".").glob("*/config.json"))
    for part in parts:
        _, tensors = weights.read(part)
        assert tensors
        assert (weights.embedded(part) / "README.md").read_text(encoding="utf-8").strip(), f"{part} has no model card"


def test_what_cannot_be_built_from_a_configuration_is_a_sentence(tmp_path: Path) -> None:
    weights.write(tmp_path / "m", {"width": 4}, model(1.0), "")
    config, tensors = weights.read(tmp_path / "m")
    with pytest.raises(UserError, match=r"no toy can be built from weights .*depth"), weights.building("toy", tmp_path):
        _ = (config["width"], config["depth"])
    with pytest.raises(UserError, match="no toy"), weights.building("toy", tmp_path):
        torch.nn.Linear(3, 3).load_state_dict(tensors)
    # What is already a sentence stays as it is.
    with pytest.raises(UserError, match=r"^mine$"), weights.building("toy", tmp_path):
        raise UserError("mine")


def test_shipped_weights_stay_below_80_mb() -> None:
    sizes = {path.parent.name: path.stat().st_size for path in weights.embedded(".").glob("*/model.safetensors")}
    assert sizes
    assert sum(sizes.values()) < 80e6, sizes
