from __future__ import annotations

import signal
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from musicrl import __version__, cli, doctor, toml
from musicrl.config import STAGES
from musicrl.errors import UserError

runner = CliRunner()


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "musicrl", *arguments], capture_output=True, text=True, timeout=120)


def test_help_and_version() -> None:
    assert run("--help").returncode == 0
    assert run("--version").stdout == f"musicrl {__version__}\n"


def test_parsing_does_not_wait_for_torch() -> None:
    code = "import sys, musicrl.cli; sys.exit('torch' in sys.modules or 'pydantic' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=120).returncode == 0


def test_config_prints_a_file_that_loads(tmp_path) -> None:
    result = runner.invoke(cli.app, ["config", "codec", "steps=7"])
    assert result.exit_code == 0
    (tmp_path / "codec.toml").write_text(result.output)
    assert toml.load(STAGES["codec"], tmp_path / "codec.toml", ["seed=0"]) == STAGES["codec"](steps=7)
    again = runner.invoke(cli.app, ["config", "codec", "--file", str(tmp_path / "codec.toml")])
    assert again.output == result.output


def test_config_without_a_stage_lists_them() -> None:
    assert runner.invoke(cli.app, ["config"]).output.split() == list(STAGES)


@pytest.mark.parametrize(
    "arguments",
    [
        ["config", "codec", "stepz=1"],
        ["config", "codecs"],
        ["config", "codec", "--file", "no/such.toml"],
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(arguments: list[str]) -> None:
    result = run(*arguments)
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("arguments", [["nonsense"], ["config", "--nonsense"]])
def test_wrong_usage_is_exit_code_2(arguments: list[str]) -> None:
    result = run(*arguments)
    assert result.returncode == 2
    assert "nonsense" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_message_of_several_lines_becomes_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> list[doctor.Finding]:
        raise UserError("first\n  second")

    monkeypatch.setattr(doctor, "examine", fail)
    result = runner.invoke(cli.app, ["doctor"])
    assert (result.exit_code, result.stderr) == (2, "error: first second\n")


def test_ctrl_c_is_one_line_and_exit_code_2() -> None:
    code = (
        # A shell that starts tests in the background makes them, and what they start, deaf to Ctrl-C.
        "import signal, time\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from musicrl import cli, doctor\n"
        "def wait():\n    print('ready', flush=True)\n    time.sleep(60)\n"
        "doctor.examine = wait\ncli.main()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, "doctor"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 2
    assert stderr.startswith("error: interrupted")
    assert stderr.count("\n") == 1


def test_an_error_of_ours_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> list[doctor.Finding]:
        raise ZeroDivisionError

    monkeypatch.setattr(doctor, "examine", fail)
    assert isinstance(runner.invoke(cli.app, ["doctor"]).exception, ZeroDivisionError)


def test_doctor_says_what_is_missing_and_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.setattr("musicrl.weights.embedded", lambda part: tmp_path / part)
    monkeypatch.setattr(doctor.shutil, "which", lambda name: None)
    monkeypatch.setattr("musicrl.corpus.render._PLACES", ())
    result = runner.invoke(cli.app, ["doctor"])
    assert result.exit_code == 1
    for word in ["python", "torch", "memory", "musicrl pretrain codec", "apt-get install mma", "soundfont"]:
        assert word in result.output


def test_doctor_passes_when_only_optional_things_are_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "examine", lambda: [doctor.Finding("mma", False, "missing", "get it", optional=True)])
    result = runner.invoke(cli.app, ["doctor"])
    assert (result.exit_code, result.output.split()) == (0, ["--", "mma", "missing", "get", "it"])
