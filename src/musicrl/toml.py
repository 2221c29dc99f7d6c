"""Settings from TOML files and `key=value` overrides, and back; every mistake in them becomes one sentence."""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.fields import FieldInfo

from musicrl.errors import UserError


class Stage(BaseModel):
    """Settings of one stage: frozen, every field with a default and a description, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


StageT = TypeVar("StageT", bound=Stage)


def load(stage: type[StageT], path: Path | None, overrides: Sequence[str] = ()) -> StageT:
    """Return the settings of a stage: its defaults, then the TOML file, then the overrides.

    Args:
        stage: class of the settings.
        path: TOML file, or None for the defaults.
        overrides: `key=value` texts; the value is a TOML value or a bare string, the key is dotted for nested tables.

    Raises:
        UserError: the file is missing or not TOML, a key is unknown, or a value has the wrong type or range.
    """
    data = _read(path) if path is not None else {}
    for override in overrides:
        key, value = _parse_override(override)
        _put(data, key.split("."), value)
    # Strict mode keeps "5" from passing as 5 and 1 as true; in its JSON form lists still fill tuples, texts paths.
    text = json.dumps(data, default=str)
    try:
        return stage.model_validate_json(text, strict=True)
    except ValidationError as error:
        raise UserError(_sentence(stage, error, path)) from None


def to_toml(config: Stage, *, describe: bool = False) -> str:
    """Return the settings as a TOML document that `load` reads back to an equal object.

    Args:
        config: the settings; a field that is None is left out, for TOML has no null.
        describe: put each field's description above it as a comment.
    """
    return "\n".join(_lines(config, (), describe)).strip() + "\n"


def fields(stage: type[Stage], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Yield (dotted key, field) of a stage in order, nested tables flattened."""
    for name, field in stage.model_fields.items():
        nested = field.annotation
        if isinstance(nested, type) and issubclass(nested, Stage):
            yield from fields(nested, f"{prefix}{name}.")
        else:
            yield prefix + name, field


def value(item: object) -> str:
    """Return one TOML value: text, number, boolean, path, list or None (an empty text)."""
    match item:
        case None:
            return ""
        case bool():
            return "true" if item else "false"
        case int() | float():
            return repr(item)
        case str() | Path():
            return json.dumps(str(item), ensure_ascii=False).replace("\x7f", "\\u007f")
        case Mapping():
            pairs = cast("Mapping[str, object]", item).items()
            return "{" + ", ".join(f"{json.dumps(k)} = {value(v)}" for k, v in pairs) + "}"
        case _:
            return "[" + ", ".join(value(v) for v in cast("Sequence[object]", item)) + "]"


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(
            f"config file {path} cannot be read: {error.strerror or error}; give an existing file"
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"config file {path} is not TOML: {error}; mend that line") from None


def _parse_override(override: str) -> tuple[str, object]:
    key, sign, text = override.partition("=")
    key, text = key.strip(), text.strip()
    if not sign or not key:
        raise UserError(f"override '{override}' is not of the form key=value; write for example steps=100")
    try:
        parsed = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return key, text
    # A line break in the text could smuggle in a second key; such a text is a bare string.
    return key, parsed["value"] if len(parsed) == 1 else text


def _put(data: dict[str, Any], keys: Sequence[str], item: object) -> None:
    for key in keys[:-1]:
        inner = data.get(key)
        if not isinstance(inner, dict):
            data[key] = inner = {}
        data = cast("dict[str, Any]", inner)
    data[keys[-1]] = item


def _sentence(stage: type[Stage], error: ValidationError, path: Path | None) -> str:
    first = error.errors(include_url=False)[0]
    where = f" (config file {path} or its overrides)" if path is not None else ""
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        nearest = difflib.get_close_matches(key, [name for name, _ in fields(stage)], n=1, cutoff=0.0)[0]
        return f"unknown config key '{key}'{where}; the nearest known key is '{nearest}'"
    message = first["msg"].removeprefix("Value error, ").replace("Input should be", "it should be")
    if not key:
        return f"config{where}: {message}"
    return f"config key '{key}'{where} is {json.dumps(first['input'], default=str)}: {message}"


def _lines(config: Stage, keys: tuple[str, ...], describe: bool) -> Iterator[str]:
    tables: list[tuple[str, Stage]] = []
    for name, field in type(config).model_fields.items():
        item = getattr(config, name)
        if isinstance(item, Stage):
            tables.append((name, item))
            continue
        if describe and field.description:
            yield f"# {field.description}"
        if item is not None:
            yield f"{name} = {value(item)}"
        elif describe:
            yield f"# {name} = (not set)"
        if describe:
            yield ""
    for name, table in tables:
        yield ""
        yield f"[{'.'.join((*keys, name))}]"
        yield from _lines(table, (*keys, name), describe)
