from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize("module", ["musicrl.server.app", "musicrl.feedback.store"])
def test_feedback_works_without_torch(module: str) -> None:
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr or f"{module} imports torch"
