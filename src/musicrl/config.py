"""The settings of every stage: one frozen model each, one TOML file per run, `key=value` overrides.

`musicrl config STAGE` prints a stage with its descriptions; docs/config.md is generated from here.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from musicrl.toml import Stage, fields, load, to_toml, value

__all__ = [
    "STAGES",
    "CodecConfig",
    "CorpusConfig",
    "EvaluateConfig",
    "FineConfig",
    "FinetuneConfig",
    "MulanConfig",
    "MusicLMConfig",
    "PreferenceConfig",
    "QualityConfig",
    "QuickstartConfig",
    "SemanticConfig",
    "ServeConfig",
    "Stage",
    "TaggerConfig",
    "load",
    "markdown",
    "to_toml",
]


class CorpusConfig(Stage):
    """`musicrl corpus build`: tunes, arranged, rendered and captioned."""

    clips: int = Field(6000, gt=0, description="Clips to render.")
    seconds: float = Field(20.0, gt=0, description="Longest clip, seconds.")
    seed: int = Field(0, ge=0, description="Seed; the same seed gives the same corpus.")
    workers: int = Field(0, ge=0, description="Processes that render; 0 is one a core.")


class CodecConfig(Stage):
    """`musicrl pretrain codec`: audio to residual codes and back."""

    steps: int = Field(4000, gt=0, description="Training steps.")
    batch_size: int = Field(16, gt=0, description="Crops a step.")
    seconds: float = Field(1.0, gt=0, description="Length of a crop, seconds.")
    learning_rate: float = Field(5e-4, gt=0, description="Peak learning rate of AdamW.")
    seed: int = Field(0, ge=0, description="Seed of weights and crops.")
    checkpoint_minutes: float = Field(5.0, gt=0, description="Time between checkpoints, minutes.")


class SemanticConfig(Stage):
    """`musicrl pretrain semantic`: self-supervised audio encoder and its k-means tokens."""

    steps: int = Field(2000, gt=0, description="Training steps.")
    batch_size: int = Field(16, gt=0, description="Crops a step.")
    seconds: float = Field(5.0, gt=0, description="Length of a crop, seconds.")
    learning_rate: float = Field(5e-4, gt=0, description="Peak learning rate of AdamW.")
    seed: int = Field(0, ge=0, description="Seed of weights and crops.")
    checkpoint_minutes: float = Field(5.0, gt=0, description="Time between checkpoints, minutes.")


class MulanConfig(Stage):
    """`musicrl pretrain mulan`: joint text–audio embedding."""

    steps: int = Field(2000, gt=0, description="Training steps.")
    batch_size: int = Field(64, gt=0, description="Pairs of caption and clip a step.")
    learning_rate: float = Field(5e-4, gt=0, description="Peak learning rate of AdamW.")
    seed: int = Field(0, ge=0, description="Seed of weights and crops.")
    checkpoint_minutes: float = Field(5.0, gt=0, description="Time between checkpoints, minutes.")


class TaggerConfig(Stage):
    """`musicrl pretrain tagger`: classifier of musical attributes, judge of prompt match, never a reward."""

    steps: int = Field(1500, gt=0, description="Training steps.")
    batch_size: int = Field(32, gt=0, description="Crops a step.")
    learning_rate: float = Field(1e-3, gt=0, description="Peak learning rate of AdamW.")
    seed: int = Field(0, ge=0, description="Seed of weights and crops.")
    checkpoint_minutes: float = Field(5.0, gt=0, description="Time between checkpoints, minutes.")


class MusicLMConfig(Stage):
    """`musicrl pretrain musiclm`: hierarchical model of semantic and coarse acoustic tokens."""

    steps: int = Field(6000, gt=0, description="Training steps.")
    batch_size: int = Field(16, gt=0, description="Crops a step.")
    seconds: float = Field(10.0, gt=0, description="Length of a crop, seconds.")
    learning_rate: float = Field(1e-3, gt=0, description="Peak learning rate of AdamW.")
    seed: int = Field(0, ge=0, description="Seed of weights and crops.")
    checkpoint_minutes: float = Field(5.0, gt=0, description="Time between checkpoints, minutes.")


class FineConfig(Stage):
    """`musicrl pretrain fine`: parallel model of the other codec levels."""

    steps: int = Field(2000, gt=0, description="Training steps.")
    batch_size: int = Field(16, gt=0, description="Crops a step.")
    seconds: float = Field(4.0, gt=0, description="Length of a crop, seconds.")
    learning_rate: float = Field(1e-3, gt=0, description="Peak learning rate of AdamW.")
    seed: int = Field(0, ge=0, description="Seed of weights and crops.")
    checkpoint_minutes: float = Field(5.0, gt=0, description="Time between checkpoints, minutes.")


class QualityConfig(Stage):
    """`musicrl reward train quality`: regressor of mean opinion scores."""

    steps: int = Field(600, gt=0, description="Training steps.")
    batch_size: int = Field(32, gt=0, description="Rated clips a step.")
    learning_rate: float = Field(1e-3, gt=0, description="Peak learning rate of AdamW.")
    seed: int = Field(0, ge=0, description="Seed of weights and batches.")
    checkpoint_minutes: float = Field(5.0, gt=0, description="Time between checkpoints, minutes.")


class PreferenceConfig(Stage):
    """`musicrl reward train preference`: Bradley–Terry model of the listeners' votes."""

    steps: int = Field(600, gt=0, description="Training steps.")
    batch_size: int = Field(32, gt=0, description="Pairs a step.")
    learning_rate: float = Field(1e-4, gt=0, description="Peak learning rate of AdamW.")
    seed: int = Field(0, ge=0, description="Seed of weights and batches.")
    checkpoint_minutes: float = Field(5.0, gt=0, description="Time between checkpoints, minutes.")


class FinetuneConfig(Stage):
    """`musicrl finetune`: reinforcement learning of a policy on rewards."""

    model: str = Field("base", description="Model to start from: base, r, u, ru or a folder.")
    rewards: tuple[str, ...] = Field(("text", "quality"), description="Rewards that are summed.")
    algorithm: Literal["reinforce", "rloo"] = Field(
        "reinforce", description="Baseline: value network (reinforce) or leave-one-out mean (rloo)."
    )
    steps: int = Field(200, gt=0, description="Policy updates.")
    prompts_per_step: int = Field(8, gt=0, description="Prompts sampled a step.")
    group_size: int = Field(8, gt=0, description="Samples per prompt (G).")
    seconds: float = Field(5.0, gt=0, description="Length of a sample, seconds.")
    learning_rate: float = Field(1e-4, gt=0, description="Learning rate of AdamW.")
    seed: int = Field(0, ge=0, description="Seed of prompts and samples.")
    checkpoint_minutes: float = Field(5.0, gt=0, description="Time between checkpoints, minutes.")


class EvaluateConfig(Stage):
    """`musicrl evaluate`: models side by side on held-out prompts."""

    models: tuple[str, ...] = Field(("base", "r", "u", "ru"), description="Models to compare, names or folders.")
    prompts: int = Field(100, gt=0, description="Held-out prompts.")
    raters: int = Field(3, gt=0, description="Simulated raters a prompt.")
    seconds: float = Field(10.0, gt=0, description="Length of a clip, seconds.")
    seed: int = Field(0, ge=0, description="Seed of prompts, samples and raters.")


class QuickstartConfig(Stage):
    """`musicrl quickstart`: the whole circle, small."""

    seed: int = Field(0, ge=0, description="Seed of every stage.")


class ServeConfig(Stage):
    """`musicrl serve`: the feedback page."""

    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8000, ge=0, le=65535, description="Port; 0 takes a free one.")
    database: str = Field("runs/preferences.db", description="SQLite file or SQLAlchemy URL of the preference store.")


STAGES: dict[str, type[Stage]] = {
    "corpus": CorpusConfig,
    "codec": CodecConfig,
    "semantic": SemanticConfig,
    "mulan": MulanConfig,
    "tagger": TaggerConfig,
    "musiclm": MusicLMConfig,
    "fine": FineConfig,
    "quality": QualityConfig,
    "preference": PreferenceConfig,
    "finetune": FinetuneConfig,
    "evaluate": EvaluateConfig,
    "quickstart": QuickstartConfig,
    "serve": ServeConfig,
}
"""Every stage by the name `musicrl config` knows it by."""


def markdown() -> str:
    """Return the reference of all settings as Markdown, the text of docs/config.md."""
    parts = [
        "# Configuration\n\nGenerated by `musicrl config --markdown`; a test keeps it equal to the code. A run reads one"
        " TOML file and `key=value` overrides, and\nsaves what it resolved to as `config.toml` in its folder.\n"
    ]
    for name, stage in STAGES.items():
        rows = [f"| `{key}` | {_default(field.default)} | {field.description} |" for key, field in fields(stage)]
        summary = (stage.__doc__ or "").strip().splitlines()[0]
        parts.append(
            f"## {name}\n\n{summary}\n\n| key | default | meaning |\n| --- | --- | --- |\n" + "\n".join(rows) + "\n"
        )
    return "\n".join(parts)


def _default(default: object) -> str:
    return "–" if default is None else f"`{value(default)}`"
