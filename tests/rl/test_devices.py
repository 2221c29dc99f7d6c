from __future__ import annotations

import pytest
import torch

from musicrl import devices


def test_mps_is_left_out(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert devices.pick() == torch.device("cpu")
