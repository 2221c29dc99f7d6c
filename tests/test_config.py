from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, ValidationError

from musicrl import toml
from musicrl.config import STAGES, CodecConfig, QuickstartConfig, Stage, load, to_toml
from musicrl.errors import UserError

DOCS = Path(__file__).parents[1] / "docs"


class Inner(Stage):
    """Inner table."""

    rate: float = Field(0.5, ge=0, description="Rate.")
    names: tuple[str, ...] = Field(("a",), description="Names.")


class Outer(Stage):
    """Outer table."""

    steps: int = Field(10, gt=0, description="Steps.")
    on: bool = Field(False, description="Switch.")
    title: str = Field("x", description="Title.")
    folder: Path = Field(Path("runs"), description="Folder.")
    limit: int | None = Field(None, description="Limit.")
    kind: Literal["rloo", "reinforce"] = Field("rloo", description="Kind.")
    scales: dict[str, tuple[float, float]] = Field({}, description="Scales.")
    inner: Inner = Field(Inner(), description="Inner.")


def test_defaults_then_file_then_overrides(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text('steps = 20\ntitle = "from file"\n[inner]\nrate = 0.25\n')
    assert load(Outer, None) == Outer()
    assert load(Outer, file) == Outer(steps=20, title="from file", inner=Inner(rate=0.25))
    merged = load(Outer, file, ["steps=30", "inner.names=['b', 'c']", "on=true", "kind=reinforce", "folder=a b/c"])
    assert merged == Outer(
        steps=30,
        title="from file",
        on=True,
        kind="reinforce",
        folder=Path("a b/c"),
        inner=Inner(rate=0.25, names=("b", "c")),
    )


def test_a_key_of_a_table_can_be_overridden_alone() -> None:
    assert load(Outer, None, ["scales.text=[0, 2.5]", "scales.quality=[1, 1]"]).scales == {
        "text": (0.0, 2.5),
        "quality": (1.0, 1.0),
    }


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("stesp=3", ["'stesp'", "'steps'"]),
        ("inner.rat=3", ["'inner.rat'", "'inner.rate'"]),
        ("steps=abc", ["'steps'", '"abc"', "integer"]),
        ("steps=1.5", ["'steps'", "1.5", "integer"]),
        ("steps=true", ["'steps'", "true", "integer"]),
        ('steps="3"', ["'steps'", '"3"', "integer"]),
        ("on=1", ["'on'", "1", "boolean"]),
        ("steps=0", ["'steps'", "0", "greater than 0"]),
        ("kind=ppo", ["'kind'", '"ppo"', "'rloo' or 'reinforce'"]),
        ("steps", ["'steps'", "key=value"]),
        ("=3", ["'=3'", "key=value"]),
        ("steps.inner=3", ["'steps'", "integer"]),
        ("inner=3", ["'inner'", "3"]),
    ],
)
def test_a_wrong_override_is_one_sentence(override: str, words: list[str]) -> None:
    with pytest.raises(UserError) as error:
        load(Outer, None, [override])
    message = str(error.value)
    assert "\n" not in message
    for word in words:
        assert word in message


def test_a_line_break_cannot_smuggle_in_a_second_key() -> None:
    assert load(Outer, None, ["title=1\nsteps = 99"]) == Outer(title="1\nsteps = 99")


def test_wrong_files_are_named(tmp_path: Path) -> None:
    broken, unknown, binary = tmp_path / "broken.toml", tmp_path / "unknown.toml", tmp_path / "binary.toml"
    broken.write_text("steps = = 3")
    unknown.write_text("steeps = 3")
    binary.write_bytes(b"\xff\xfe\x00")
    for path, word in [
        (tmp_path / "none.toml", "cannot be read"),
        (tmp_path, "cannot be read"),
        (broken, "not TOML"),
        (binary, "not TOML"),
        (unknown, "'steps'"),
    ]:
        with pytest.raises(UserError, match=word) as error:
            load(Outer, path)
        assert str(path) in str(error.value)


@given(
    st.builds(
        Outer,
        steps=st.integers(1, 2**62),
        on=st.booleans(),
        title=st.text(),
        limit=st.none() | st.integers(-5, 5),
        kind=st.sampled_from(["rloo", "reinforce"]),
        scales=st.dictionaries(st.text(), st.tuples(st.floats(allow_nan=False), st.floats(allow_nan=False))),
        inner=st.builds(Inner, rate=st.floats(0, allow_infinity=False), names=st.lists(st.text()).map(tuple)),
    ),
    st.booleans(),
)
def test_toml_round_trip(tmp_path_factory: pytest.TempPathFactory, config: Outer, describe: bool) -> None:
    file = tmp_path_factory.mktemp("toml") / "run.toml"
    file.write_text(to_toml(config, describe=describe), encoding="utf-8")
    assert load(Outer, file) == config


@pytest.mark.parametrize("name", STAGES)
def test_every_stage_is_frozen_described_and_survives_toml(name: str, tmp_path: Path) -> None:
    stage = STAGES[name]
    config = load(stage, None)
    for key, field in toml.fields(stage):
        assert field.description, f"{name}.{key} has no description"
        assert not field.is_required(), f"{name}.{key} has no default"
        if field.default is not None:  # a None that is not the default could not be written down
            assert field.annotation is not None
            assert type(None) not in getattr(field.annotation, "__args__", ()), f"{name}.{key}"
    first = next(iter(stage.model_fields))
    with pytest.raises(ValidationError):
        setattr(config, first, getattr(config, first))
    file = tmp_path / "run.toml"
    file.write_text(to_toml(config, describe=True), encoding="utf-8")
    assert load(stage, file) == config


def test_pick_names_the_nearest_stage() -> None:
    assert toml.pick(STAGES, "codec") is CodecConfig
    with pytest.raises(UserError, match="nearest is 'codec'"):
        toml.pick(STAGES, "codecs")


def test_the_reference_page_is_what_the_code_says() -> None:
    page = (DOCS / "config.md").read_text(encoding="utf-8")
    assert page == toml.markdown(STAGES), "run `musicrl config --markdown > docs/config.md`"


def test_a_nested_stage_given_in_part_keeps_the_rest_of_its_fields_default(tmp_path) -> None:
    file = tmp_path / "circle.toml"
    file.write_text("[u]\nsteps = 7\n[ru.rewards]\nquality = 2.0\n")
    settings = load(QuickstartConfig, file, ["u.seconds=2"])
    default = QuickstartConfig()
    assert settings.u == default.u.model_copy(update={"steps": 7, "seconds": 2.0})
    # A table of rewards is replaced as a whole: what a recipe names is all there is.
    assert settings.ru.rewards == {"quality": 2.0}
    assert settings.ru.steps == default.ru.steps


def test_the_reference_gives_the_defaults_a_stage_has_within_another() -> None:
    rows = toml.markdown({"quickstart": STAGES["quickstart"]})
    assert STAGES["quickstart"]().r.steps != STAGES["finetune"]().steps
    assert f"| `r.steps` | `{STAGES['quickstart']().r.steps}` |" in rows
