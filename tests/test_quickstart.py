from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from musicrl import quickstart
from musicrl.config import QuickstartConfig
from musicrl.errors import UserError


def begin(folder: Path, *, fresh: bool = False) -> None:
    config = QuickstartConfig()
    quickstart._check(config, folder)
    quickstart._open(config, folder, fresh, lambda line: None)


def test_a_circle_does_not_go_on_with_another_base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quickstart, "checksums", lambda *parts: dict.fromkeys(parts, "a" * 64))
    begin(tmp_path)
    begin(tmp_path)
    monkeypatch.setattr(quickstart, "checksums", lambda *parts: dict.fromkeys(parts, "b" * 64))
    with pytest.raises(UserError, match="other weights of the base"):
        begin(tmp_path)
    begin(tmp_path, fresh=True)
    begin(tmp_path)


@pytest.mark.parametrize("fail_at", [1, 2])
def test_an_interrupted_beginning_can_be_begun_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fail_at: int
) -> None:
    monkeypatch.setattr(quickstart, "checksums", lambda *parts: dict.fromkeys(parts, "a" * 64))
    real: Callable[..., None] = quickstart.files.write_atomic
    calls = 0

    def interrupted(path: Path, data: bytes) -> None:
        nonlocal calls
        calls += 1
        if calls == fail_at:
            raise KeyboardInterrupt
        real(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(quickstart.files, "write_atomic", interrupted)
        with pytest.raises(KeyboardInterrupt):
            begin(tmp_path)
    begin(tmp_path)
    assert (tmp_path / "base.json").exists()


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    for fresh in (False, True):
        with pytest.raises(UserError, match="no circle"):
            begin(tmp_path, fresh=fresh)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
