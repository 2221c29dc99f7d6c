"""The settings of every stage: one frozen model each, one TOML file per run, `key=value` overrides.

`musicrl config STAGE` prints a stage with its descriptions; docs/config.md is generated from here.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from musicrl.toml import Stage, load, to_toml

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

    steps: int = Field(600, gt=0, description="Most training steps; early stopping may end sooner.")
    batch_size: int = Field(32, gt=0, description="Rated clips a step.")
    seconds: float = Field(5.0, gt=0, description="Length of a training crop, seconds.")
    width: int = Field(160, gt=0, description="Channels of the network.")
    blocks: int = Field(4, gt=0, description="Residual blocks of the network.")
    learning_rate: float = Field(1e-3, gt=0, description="Learning rate of AdamW.")
    weight_decay: float = Field(0.05, ge=0, description="Weight decay of AdamW.")
    validation: float = Field(0.15, gt=0, lt=1, description="Share of the clips held out.")
    eval_every: int = Field(25, gt=0, description="Steps between evaluations on held-out clips.")
    patience: int = Field(8, gt=0, description="Evaluations without a better held-out loss before training stops.")
    seed: int = Field(0, ge=0, description="Seed of weights, split and batches.")
    checkpoint_minutes: float = Field(5.0, gt=0, description="Time between checkpoints, minutes.")


class PreferenceConfig(Stage):
    """`musicrl reward train preference`: Bradley–Terry model of the listeners' votes."""

    base: str = Field("musiclm", description="Token model it starts from: an embedded part or a folder.")
    tune: Literal["head", "lora", "full"] = Field(
        "lora", description="What is trained besides the head: nothing, adapters, or every weight."
    )
    lora_rank: int = Field(8, gt=0, description="Rank of the adapters.")
    steps: int = Field(600, gt=0, description="Most training steps; early stopping may end sooner.")
    batch_size: int = Field(32, gt=0, description="Pairs a step.")
    device_batch_size: int = Field(16, gt=0, description="Pairs in memory at once; changes speed, not the result.")
    learning_rate: float = Field(3e-4, gt=0, description="Learning rate of AdamW for adapters or weights.")
    head_learning_rate: float = Field(1e-3, gt=0, description="Learning rate of AdamW for the head.")
    weight_decay: float = Field(0.01, ge=0, description="Weight decay of AdamW.")
    validation: float = Field(0.15, gt=0, lt=1, description="Share of the prompts whose pairs are held out.")
    eval_every: int = Field(20, gt=0, description="Steps between evaluations on held-out pairs.")
    patience: int = Field(6, gt=0, description="Evaluations without a better held-out loss before training stops.")
    seed: int = Field(0, ge=0, description="Seed of weights, split and batches.")
    checkpoint_minutes: float = Field(5.0, gt=0, description="Time between checkpoints, minutes.")


class FinetuneConfig(Stage):
    """`musicrl finetune`: reinforcement learning of a policy on rewards."""

    policy: str = Field("base", description="Model to start from and to measure KL to: base, r, u, ru or a folder.")
    rewards: dict[str, float] = Field(
        {"text_adherence": 1.0, "quality": 1.0}, description="Weight of each reward in the sum, by name."
    )
    scales: dict[str, tuple[float, float]] = Field(
        {},
        description="Mean and deviation that standardise a reward, by name; measured on the start policy if not given.",
    )
    quality: str = Field("quality", description="Weights of the quality model: an embedded part or a folder.")
    preference: str = Field("preference", description="Weights of the preference model: an embedded part or a folder.")
    algorithm: Literal["rloo", "reinforce"] = Field(
        "rloo", description="Baseline: mean of the prompt's other samples (rloo) or value network (reinforce)."
    )
    alpha: float = Field(
        0.1,
        ge=0,
        le=1,
        description="Weight of the KL, against 1 - alpha of the reward; a clip's reward against its KL.",
    )
    codebook_weights: tuple[float, ...] = Field(
        (1.0, 1.0, 0.25, 0.25), description="Weight of each codebook in the policy gradient; none for equal weights."
    )
    steps: int = Field(200, gt=0, description="Policy updates.")
    prompts_per_step: int = Field(8, gt=0, description="Prompts sampled a step.")
    group_size: int = Field(8, gt=0, description="Samples per prompt (G).")
    seconds: float = Field(5.0, gt=0, description="Length of a sample, seconds.")
    temperature: float = Field(0.99, gt=0, description="Sampling temperature; scores are taken at the same one.")
    learning_rate: float = Field(3e-4, gt=0, description="Learning rate of AdamW.")
    value_learning_rate: float = Field(1e-4, gt=0, description="Learning rate of the value network (reinforce).")
    warmup_steps: int = Field(5, ge=0, description="Steps over which the learning rates rise from 0.")
    max_grad_norm: float = Field(1.0, gt=0, description="Gradients are scaled down to this norm.")
    lora_rank: int = Field(16, gt=0, description="Rank of the adapters.")
    full: bool = Field(False, description="Train every weight instead of adapters.")
    kl_limit: float = Field(200.0, gt=0, description="Training ends when the KL of a clip passes this, nats.")
    device_batch_size: int = Field(16, gt=0, description="Clips in memory at once; changes speed, not the result.")
    seed: int = Field(0, ge=0, description="Seed of prompts and samples.")
    checkpoint_minutes: float = Field(5.0, gt=0, description="Time between checkpoints, minutes.")

    @model_validator(mode="after")
    def _groups_have_others(self) -> FinetuneConfig:
        if self.algorithm == "rloo" and self.group_size < 2:
            raise ValueError('rloo compares samples of one prompt; give group_size >= 2 or algorithm = "reinforce"')
        return self


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
