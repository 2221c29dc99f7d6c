from __future__ import annotations

import errno
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import Field

from musicrl import files
from musicrl.config import Stage
from musicrl.errors import UserError
from musicrl.runs import Checkpoint, Run, finite, interruptible, open_run, pack, progress, unpack


class Toy(Stage):
    """A toy stage."""

    steps: int = Field(10, description="Steps.")
    rate: float = Field(0.5, description="Rate.")


def start(path: Path, *, resume: bool = False, config: Toy | None = None) -> Run:
    return open_run(path, "toy", config or Toy(), resume=resume)


def tensors(value: float, size: int = 4) -> dict[str, torch.Tensor]:
    return {"weight": torch.full((size,), value), "count": torch.tensor(int(value))}


def folders(run: Run) -> list[str]:
    return sorted(path.name for path in (run.path / "checkpoints").iterdir())


def step_of(run: Run) -> int:
    checkpoint = run.latest()
    assert checkpoint is not None
    return checkpoint.step


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    state = {"counter": 3, "nested": {"a": [1, 2.5, None, "x"]}}
    with start(tmp_path / "run") as run:
        assert run.latest() is None
        run.save(7, tensors(1.5), state)
        checkpoint = run.latest()
    assert isinstance(checkpoint, Checkpoint)
    assert (checkpoint.step, checkpoint.state) == (7, state)
    assert torch.equal(checkpoint.tensors["weight"], torch.full((4,), 1.5))
    assert checkpoint.tensors["count"].dtype == torch.int64


def test_tensors_that_share_memory_or_are_views_are_saved(tmp_path: Path) -> None:
    base = torch.arange(12.0).reshape(3, 4)
    with start(tmp_path / "run") as run:
        run.save(1, {"a": base, "tied": base, "transposed": base.T, "row": base[1], "empty": torch.empty(0)}, {})
        checkpoint = run.latest()
    assert checkpoint is not None
    assert torch.equal(checkpoint.tensors["tied"], base)
    assert torch.equal(checkpoint.tensors["transposed"], base.T)
    assert torch.equal(checkpoint.tensors["row"], base[1])
    assert checkpoint.tensors["empty"].shape == (0,)


def test_the_last_two_checkpoints_stay(tmp_path: Path) -> None:
    with start(tmp_path / "run") as run:
        for step in (1, 2, 2, 3):
            run.save(step, tensors(step), {})
        assert folders(run) == ["000003-step-2", "000004-step-3"]


def test_a_damaged_newest_checkpoint_falls_back_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with start(tmp_path / "run") as run:
        run.save(1, tensors(1), {})
        run.save(2, tensors(2), {})
        newest = run.path / "checkpoints" / "000002-step-2" / "tensors.safetensors"
        damaged = bytearray(newest.read_bytes())
        damaged[-1] ^= 1
        newest.write_bytes(damaged)
        assert step_of(run) == 1
    assert "000002-step-2 is damaged (tensors.safetensors does not match its SHA-256)" in caplog.text
    with start(tmp_path / "run", resume=True) as run:
        assert step_of(run) == 1
        # The damaged one must not count as one of the two that stay, nor win over what is saved after it.
        run.save(2, tensors(5), {})
        assert step_of(run) == 2
        assert folders(run) == ["000001-step-1", "000003-step-2"]


@pytest.mark.parametrize("name", ["tensors.safetensors", "state.json", "manifest.json"])
@pytest.mark.parametrize("damage", ["missing", "empty", "half"])
def test_any_damage_to_any_file_is_noticed(tmp_path: Path, name: str, damage: str) -> None:
    with start(tmp_path / "run") as run:
        run.save(1, tensors(1), {})
        run.save(2, tensors(2), {})
        file = run.path / "checkpoints" / "000002-step-2" / name
        if damage == "missing":
            file.unlink()
        else:
            file.write_bytes(file.read_bytes()[: 0 if damage == "empty" else file.stat().st_size // 2])
        assert step_of(run) == 1


def test_partial_checkpoints_are_ignored_and_swept(tmp_path: Path) -> None:
    with start(tmp_path / "run") as run:
        run.save(1, tensors(1), {})
    rest = tmp_path / "run" / "checkpoints" / ".000002-step-2.tmp"
    rest.mkdir()
    (rest / "tensors.safetensors").write_bytes(b"half")
    with start(tmp_path / "run", resume=True) as run:
        assert step_of(run) == 1
        assert folders(run) == ["000001-step-1"]


def test_a_run_without_one_whole_checkpoint_says_so(tmp_path: Path) -> None:
    with start(tmp_path / "run") as run:
        run.save(1, tensors(1), {})
        (run.path / "checkpoints" / "000001-step-1" / "state.json").unlink()
    with pytest.raises(UserError, match=r"no checkpoint in .* matches its manifest"):
        start(tmp_path / "run", resume=True)


def test_a_run_is_not_overwritten_and_not_resumed_with_other_settings(tmp_path: Path) -> None:
    path = tmp_path / "run"
    with start(path) as run:
        run.save(1, tensors(1), {})
    with pytest.raises(UserError, match="already holds a run; continue it with --resume"):
        start(path)
    with pytest.raises(UserError, match=r"started with rate = 0\.5, now it is 0\.25"):
        start(path, resume=True, config=Toy(rate=0.25))
    with pytest.raises(UserError, match="holds a toy run, not a codec run"):
        open_run(path, "codec", Toy(), resume=True)
    with start(path, resume=True) as run:
        assert step_of(run) == 1


def test_a_run_is_not_resumed_on_other_weights(tmp_path: Path) -> None:
    with open_run(tmp_path, "toy", Toy(), resume=False, inputs={"base": "a" * 64}) as run:
        run.save(1, {"x": torch.zeros(1)}, {})
    for other in ({"base": "b" * 64}, {"base": "a" * 64, "quality": "c" * 64}):
        with pytest.raises(UserError, match=r"started from another (base|quality)"):
            open_run(tmp_path, "toy", Toy(), resume=True, inputs=other)
    open_run(tmp_path, "toy", Toy(), resume=True, inputs={"base": "a" * 64}).close()


def test_a_run_that_never_saved_starts_anew_with_the_new_settings(tmp_path: Path) -> None:
    with start(tmp_path / "run") as run:
        run.log(1, loss=1.0)
    for resume in (False, True):
        with start(tmp_path / "run", resume=resume, config=Toy(steps=3)) as run:
            assert (run.path / "metrics.jsonl").read_text() == ""
            assert (run.path / "config.toml").read_text() == "steps = 3\nrate = 0.5\n"
            run.log(1, loss=1.0)


def test_a_second_process_is_kept_out(tmp_path: Path) -> None:
    with start(tmp_path / "run"), pytest.raises(UserError, match="in use by another process"):
        start(tmp_path / "run")
    start(tmp_path / "run").close()


def test_a_folder_that_cannot_be_made_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        start(tmp_path / "file" / "run")


def test_the_log_of_a_resumed_run_equals_the_uninterrupted_one(tmp_path: Path) -> None:
    def train(run: Run, until: int) -> None:
        checkpoint = run.latest()
        for step in range(checkpoint.step + 1 if checkpoint else 1, until + 1):
            run.log(step, loss=1 / step, clips=step)
            if step % 3 == 0:
                run.save(step, tensors(step), {})

    with start(tmp_path / "whole") as whole:
        train(whole, 9)
    with start(tmp_path / "parts") as run:
        train(run, 5)
        with (run.path / "metrics.jsonl").open("a") as file:
            file.write('{"step": 6, "lo')  # a row the crash cut short
    with start(tmp_path / "parts", resume=True) as run:
        train(run, 9)
    assert (run.path / "metrics.jsonl").read_text() == (whole.path / "metrics.jsonl").read_text()
    rows = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    assert rows[1] == {"step": 2, "loss": 0.5, "clips": 2}


def test_the_log_stays_readable_when_a_metric_is_not_finite(tmp_path: Path) -> None:
    with start(tmp_path / "run") as run:
        run.log(1, loss=float("nan"), kl=float("-inf"), ok=0.0)
    text = (run.path / "metrics.jsonl").read_text()
    assert json.loads(text, parse_constant=pytest.fail) == {"step": 1, "loss": None, "kl": None, "ok": 0.0}


# What a save asks of the disk, in order; each is made to fail once at each of its calls.
FAULTS: list[tuple[object, str]] = [
    (files, "write_tensors"),
    (files, "write_bytes"),
    (files, "sync_directory"),
    (os, "replace"),
    (os, "fsync"),
]


@pytest.mark.parametrize(("owner", "name"), FAULTS)
def test_a_full_disk_at_any_moment_of_a_save_loses_nothing(
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

        with start(tmp_path / f"{fail_at}") as run:
            run.save(1, tensors(1), {"good": True})
            monkeypatch.setattr(owner, name, full)
            try:
                run.save(2, tensors(2), {})
            except UserError as error:
                failures += 1
                assert "disk full while saving step 2" in str(error)
                assert "nothing lost: last good checkpoint is" in str(error)
            else:
                break
            finally:
                monkeypatch.setattr(owner, name, real)
        with start(tmp_path / f"{fail_at}", resume=True) as run:
            # Once renamed, the new checkpoint is whole, whatever failed after that.
            assert step_of(run) in (1, 2)
            run.save(3, tensors(3), {})
            assert step_of(run) == 3
    assert failures == calls, "the loop ended before every call had failed once"
    assert failures > 0


def test_a_full_disk_while_logging_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with start(tmp_path / "run") as run:
        run.save(1, tensors(1), {})

        def full(*_: object, **__: object) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(Path, "open", full)
        with pytest.raises(UserError, match=r"disk full while logging step 2 .*last good checkpoint .*000001-step-1"):
            run.log(2, loss=1.0)


LIMITED = """
import errno, resource, sys, torch
from pathlib import Path
from musicrl import files
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    files.write_tensors(Path(sys.argv[1]), {"weight": torch.zeros(1_000_000)})
except OSError as error:
    sys.exit(0 if error.errno == errno.EFBIG else f"wrong error {error!r}")
sys.exit("no error")
"""


def test_the_tensor_writer_reports_what_the_system_said(tmp_path: Path) -> None:
    code = [sys.executable, "-c", LIMITED, str(tmp_path / "x.safetensors")]
    result = subprocess.run(code, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr


NURSERY = """
import os, sys
from pathlib import Path
import torch
from pydantic import Field
from musicrl.config import Stage
from musicrl.runs import open_run
class Toy(Stage):
    steps: int = Field(default=10)
    rate: float = Field(default=0.5)
def save_for_ever():
    with open_run(Path(sys.argv[1]), "toy", Toy(), resume=True) as run:
        last = run.latest()
        step = last.step if last else 0
        print(os.getpid(), flush=True)
        while True:
            step += 1
            run.log(step, loss=float(step))
            run.save(step, {"weight": torch.full((50_000,), float(step))}, {"step": step})
torch.set_num_threads(1)
for _ in sys.stdin:
    child = os.fork()
    if child == 0:
        save_for_ever()
    os.waitpid(child, 0)
    print("dead", flush=True)
"""


@pytest.mark.slow
def test_kill_9_while_saving_never_leaves_an_unreadable_run(tmp_path: Path) -> None:
    moments = random.Random(0)
    path = tmp_path / "run"
    reached = partial = 0
    # One process imports torch and forks the ones that are killed, for importing takes longer than the whole test.
    with subprocess.Popen(
        [sys.executable, "-c", NURSERY, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as nursery:
        assert nursery.stdin is not None
        assert nursery.stdout is not None
        for _ in range(20):
            nursery.stdin.write("next\n")
            nursery.stdin.flush()
            saver = int(nursery.stdout.readline())
            time.sleep(moments.uniform(0.0, 0.1))
            os.kill(saver, signal.SIGKILL)
            assert nursery.stdout.readline() == "dead\n"
            partial += any((path / "checkpoints").glob(".*.tmp"))
            with start(path, resume=True) as run:
                checkpoint = run.latest()
                rows = (path / "metrics.jsonl").read_text().splitlines()
            if checkpoint is None:
                assert reached == 0
                continue
            assert checkpoint.step >= reached
            assert checkpoint.state == {"step": checkpoint.step}
            assert torch.equal(checkpoint.tensors["weight"], torch.full((50_000,), float(checkpoint.step)))
            assert [json.loads(row)["step"] for row in rows] == list(range(1, checkpoint.step + 1))
            reached = checkpoint.step
        nursery.stdin.close()
    assert reached > 0
    assert partial > 0, "no kill fell into a save, so the test proved nothing"


def train(path: Path, stop_at: int | None = None, *, forget: str = "") -> dict[str, torch.Tensor]:
    """Train a small network with noise, dropout, two optimizers and a NumPy sampler; return its weights."""
    torch.manual_seed(1)
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Dropout(0.3), torch.nn.Linear(8, 1))
    optimizers: dict[str, torch.optim.Optimizer] = {
        "adam": torch.optim.AdamW(model[0].parameters(), lr=0.01, amsgrad=True),
        "sgd": torch.optim.SGD(model[2].parameters(), lr=0.01, momentum=0.9),
    }
    schedule = torch.optim.lr_scheduler.StepLR(optimizers["adam"], step_size=3, gamma=0.5)
    generators: dict[str, torch.Generator | np.random.Generator] = {
        "noise": torch.Generator().manual_seed(2),
        "rows": np.random.default_rng(3),
        "global": torch.default_generator,
    }
    data = torch.randn(64, 4, generator=torch.Generator().manual_seed(4))
    with start(path, resume=True) as run:
        first = 1
        if checkpoint := run.latest():
            first = checkpoint.step + 1
            model.load_state_dict({name: checkpoint.tensors[f"model.{name}"] for name in model.state_dict()})
            kept = {name: one for name, one in generators.items() if name != forget}
            restored = {} if forget == "optimizer" else optimizers
            unpack(checkpoint.tensors, checkpoint.state, optimizer=restored, generators=kept)
            schedule.load_state_dict(checkpoint.state["schedule"])
        for step in range(first, 13):
            noise, rows = generators["noise"], generators["rows"]
            assert isinstance(noise, torch.Generator)
            assert isinstance(rows, np.random.Generator)
            batch = data[rows.choice(64, size=8)]
            loss = (model(batch + 0.1 * torch.randn(batch.shape, generator=noise)) - batch.sum(1, True)).square().mean()
            for optimizer in optimizers.values():
                optimizer.zero_grad()
            loss.backward()
            for optimizer in optimizers.values():
                optimizer.step()
            schedule.step()
            run.log(step, loss=loss.item())
            if step == stop_at:
                packed, state = pack(optimizer=optimizers, generators=generators)
                weights = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
                run.save(step, weights | packed, {**state, "schedule": schedule.state_dict()})
                break
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a)


def test_a_resumed_training_equals_the_uninterrupted_one_bit_for_bit(tmp_path: Path) -> None:
    whole = train(tmp_path / "whole")
    train(tmp_path / "parts", stop_at=5)
    train(tmp_path / "parts", stop_at=9)
    assert same(train(tmp_path / "parts"), whole)
    assert (tmp_path / "parts/metrics.jsonl").read_text() == (tmp_path / "whole/metrics.jsonl").read_text()


@pytest.mark.parametrize("forget", ["noise", "rows", "global", "optimizer"])
def test_without_each_part_of_the_state_a_resumed_training_differs(tmp_path: Path, forget: str) -> None:
    whole = train(tmp_path / "whole")
    train(tmp_path / "parts", stop_at=5)
    assert not same(train(tmp_path / "parts", forget=forget), whole)


def test_unpack_names_what_the_checkpoint_lacks() -> None:
    tensors, state = pack(generators={"a": torch.Generator()})
    with pytest.raises(UserError, match="no generator 'b'"):
        unpack(tensors, state, generators={"b": torch.Generator()})
    with pytest.raises(UserError, match="no generator 'a'"):
        unpack(tensors, state, generators={"a": np.random.default_rng(0)})
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)])
    with pytest.raises(UserError, match="no optimizer 'main'"):
        unpack(tensors, state, optimizer=optimizer)


def test_packed_state_does_not_follow_the_optimizer() -> None:
    weight = torch.ones(2, requires_grad=True)
    optimizer = torch.optim.AdamW([weight])

    def step() -> None:
        weight.sum().backward()
        optimizer.step()

    step()
    packed, _ = pack(optimizer=optimizer)
    before = {name: tensor.clone() for name, tensor in packed.items()}
    step()
    assert set(packed) == {"optimizer.main.0.step", "optimizer.main.0.exp_avg", "optimizer.main.0.exp_avg_sq"}
    assert same(before, packed)


def test_finite() -> None:
    good, bad = torch.zeros(3), torch.tensor([0.0, float("nan")])
    assert finite()
    assert finite(good, good.to(torch.int64))
    assert not finite(good, bad)
    assert not finite(torch.tensor(float("inf")))


def test_the_error_of_an_interrupted_loop_says_how_to_go_on(tmp_path: Path) -> None:
    with start(tmp_path / "run") as run:
        assert str(run.interrupted(7)) == f"interrupted at step 7; saved in {run.path}; run again with --resume"


def test_due_after_the_time_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    with start(tmp_path / "run") as run:
        assert not run.due(5)
        now += 301
        assert run.due(5)
        run.save(1, tensors(1), {})
        assert not run.due(5)


def test_the_first_ctrl_c_asks_and_the_second_interrupts(capsys: pytest.CaptureFixture[str]) -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), interruptible() as stop:
        assert not stop()
        signal.raise_signal(signal.SIGINT)
        assert stop()
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before
    assert "stopping after this step" in capsys.readouterr().err


def test_progress_without_a_terminal_writes_a_line_every_ten_seconds(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    with progress("training", 30) as bar:
        for _ in range(30):
            now += 1.0
            bar.update(loss=0.123456, phase="warm")
            bar.advance()
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "training: 10/30, 10 s, loss 0.1235 phase warm"
    assert lines[-1].startswith("training: 30/30, 30 s")
    assert len(lines) == 4
