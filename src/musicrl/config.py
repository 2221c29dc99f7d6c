"""The settings of every stage: one frozen model each, one TOML file per run, `key=value` overrides.

`musicrl config STAGE` prints a stage with its descriptions; docs/config.md is generated from here. Write `default=`
out: type checkers take a positional default for a required field.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from musicrl.toml import Stage, load, to_toml

__all__ = [
    "STAGES",
    "CodecConfig",
    "CollectConfig",
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


LARGEST_SEED = 2**31 - 1
"""Generators take 64 bits, and some seeds are multiplied to keep the streams of steps apart."""


class CorpusConfig(Stage):
    """`musicrl corpus build`: tunes, arranged, rendered and captioned."""

    clips: int = Field(default=4800, gt=0, description="Clips of 10.24 s to render; rejected ones leave a gap.")
    seed: int = Field(default=0, ge=0, le=LARGEST_SEED, description="Seed; the same seed gives the same corpus.")
    workers: int = Field(default=0, ge=0, description="Processes that render; 0 is one a core.")
    soundfonts: tuple[str, ...] = Field(
        default=("FluidR3_GM.sf2", "TimGM6mb.sf2"),
        min_length=1,
        description="Soundfont files; each clip takes one of them.",
    )
    soundfont_folder: Path | None = Field(default=None, description="Where to look for soundfonts first.")


class CodecConfig(Stage):
    """`musicrl pretrain codec`: audio to residual codes and back."""

    steps: int = Field(default=1700, gt=0, description="Training steps.")
    autoencoder_steps: int = Field(default=280, ge=0, description="First steps, without quantizer.")
    adversarial_steps: int = Field(default=350, ge=0, description="Last steps, with discriminators.")
    batch_size: int = Field(default=16, gt=0, description="Crops a step.")
    seconds: float = Field(default=1.0, gt=0, description="Length of a crop, seconds.")
    learning_rate: float = Field(default=1.5e-3, gt=0, description="Peak learning rate of AdamW.")
    width: int = Field(default=320, gt=0, description="Width of encoder and decoder.")
    encoder_blocks: int = Field(default=3, gt=0, description="ConvNeXt blocks before the quantizer, 50 Hz.")
    decoder_blocks: int = Field(default=4, gt=0, description="ConvNeXt blocks after the quantizer, 50 Hz.")
    output_blocks: int = Field(default=4, gt=0, description="ConvNeXt blocks before the spectrum head, 100 Hz.")
    latent_dim: int = Field(default=64, gt=0, description="Dimension that is quantized.")
    codebook_size: int = Field(default=1024, gt=1, description="Entries of each of the 12 codebooks.")
    seed: int = Field(default=0, ge=0, le=LARGEST_SEED, description="Seed of weights and crops.")
    checkpoint_minutes: float = Field(default=4.0, gt=0, description="Time between checkpoints, minutes.")


class SemanticConfig(Stage):
    """`musicrl pretrain semantic`: self-supervised audio encoder and its k-means tokens."""

    steps: int = Field(default=1200, gt=0, description="Training steps.")
    batch_size: int = Field(default=16, gt=0, description="Crops a step.")
    seconds: float = Field(default=8.0, gt=0, description="Length of a crop, seconds.")
    learning_rate: float = Field(default=1e-3, gt=0, description="Peak learning rate of AdamW.")
    width: int = Field(default=256, gt=0, description="Channels of the encoder.")
    depth: int = Field(default=7, gt=0, description="Blocks of the encoder.")
    bottleneck: int = Field(default=48, gt=0, description="Channels of each of its two outputs.")
    noise: float = Field(default=0.4, ge=0, description="Standard deviation of the noise on the outputs in training.")
    codebook_size: int = Field(default=1024, gt=1, description="Centroids of each output.")
    kmeans_frames: int = Field(default=120_000, gt=0, description="Frames the centroids are fitted to.")
    seed: int = Field(default=0, ge=0, le=LARGEST_SEED, description="Seed of weights, crops and centroids.")
    checkpoint_minutes: float = Field(default=4.0, gt=0, description="Time between checkpoints, minutes.")


class MulanConfig(Stage):
    """`musicrl pretrain mulan`: joint text–audio embedding."""

    steps: int = Field(default=600, gt=0, description="Training steps.")
    batch_size: int = Field(default=256, gt=1, description="Pairs of text and clip a step.")
    learning_rate: float = Field(default=1e-3, gt=0, description="Peak learning rate of AdamW.")
    weight_decay: float = Field(default=0.1, ge=0, description="Weight decay of AdamW.")
    prompt_share: float = Field(
        default=0.3, ge=0, le=1, description="Share of texts that are prompts instead of captions."
    )
    width: int = Field(default=256, gt=0, description="Channels of the audio tower.")
    depth: int = Field(default=4, gt=0, description="Layers of the audio tower.")
    heads: int = Field(default=4, gt=0, description="Attention heads of both towers.")
    text_width: int = Field(default=256, gt=0, description="Channels of the text tower.")
    dim: int = Field(default=128, gt=0, description="Width of an embedding.")
    levels: int = Field(default=12, gt=0, description="Conditioning tokens of an embedding.")
    codebook_size: int = Field(default=1024, gt=1, description="Codes a level.")
    seed: int = Field(default=0, ge=0, le=LARGEST_SEED, description="Seed of weights, batches and codebooks.")
    checkpoint_minutes: float = Field(default=4.0, gt=0, description="Time between checkpoints, minutes.")


class TaggerConfig(Stage):
    """`musicrl pretrain tagger`: classifier of musical attributes, judge of prompt match, never a reward."""

    steps: int = Field(default=1500, gt=0, description="Training steps.")
    batch_size: int = Field(default=64, gt=0, description="Crops a step.")
    learning_rate: float = Field(default=1e-3, gt=0, description="Peak learning rate of AdamW.")
    width: int = Field(default=160, gt=0, description="Channels of the classifier.")
    dilations: tuple[int, ...] = Field(default=(1, 2, 4, 8, 16), description="Dilation of each of its blocks.")
    seed: int = Field(default=1, ge=0, le=LARGEST_SEED, description="Seed of weights and crops; not MuLan's.")
    checkpoint_minutes: float = Field(default=4.0, gt=0, description="Time between checkpoints, minutes.")


class MusicLMConfig(Stage):
    """`musicrl pretrain musiclm`: hierarchical model of semantic and coarse acoustic tokens."""

    steps: int = Field(default=2400, gt=0, description="Training steps.")
    batch_size: int = Field(default=16, gt=0, description="Crops a step.")
    seconds: float = Field(default=10.0, gt=0, description="Longest crop, seconds; the shortest has 0.6 of it.")
    learning_rate: float = Field(default=1e-3, gt=0, description="Peak learning rate of AdamW.")
    weight_decay: float = Field(default=0.1, ge=0, description="Weight decay of AdamW.")
    code_dropout: float = Field(
        default=0.1, ge=0, lt=1, description="Share of past codes hidden from the temporal transformer in training."
    )
    frame_share: float = Field(
        default=1 / 3, gt=0, le=1, description="Share of the frames the depth transformer learns from at first."
    )
    full_after: float = Field(
        default=0.7, ge=0, le=1, description="Share of the steps after which it sees every frame."
    )
    num_codebooks: Literal[4, 6] = Field(
        default=4, description="Codes a frame (K): two semantic ones and one or two codec levels of two codec frames."
    )
    width: int = Field(default=384, gt=0, description="Width of the temporal transformer.")
    layers: int = Field(default=5, gt=0, description="Blocks of the temporal transformer.")
    heads: int = Field(default=6, gt=0, description="Attention heads of the temporal transformer.")
    depth_width: int = Field(default=192, gt=0, description="Width of the depth transformer.")
    depth_layers: int = Field(default=2, gt=0, description="Blocks of the depth transformer.")
    depth_heads: int = Field(default=3, gt=0, description="Attention heads of the depth transformer.")
    validate_every: int = Field(default=200, gt=0, description="Steps between measurements on held-out clips.")
    seed: int = Field(default=0, ge=0, le=LARGEST_SEED, description="Seed of weights and crops.")
    checkpoint_minutes: float = Field(default=4.0, gt=0, description="Time between checkpoints, minutes.")


class FineConfig(Stage):
    """`musicrl pretrain fine`: parallel model of the other codec levels."""

    steps: int = Field(default=800, gt=0, description="Training steps.")
    batch_size: int = Field(default=16, gt=0, description="Crops a step.")
    seconds: float = Field(default=5.0, gt=0, description="Length of a crop, and of a window when decoding, seconds.")
    learning_rate: float = Field(default=1.5e-3, gt=0, description="Peak learning rate of AdamW.")
    weight_decay: float = Field(default=0.1, ge=0, description="Weight decay of AdamW.")
    width: int = Field(default=256, gt=0, description="Width of the transformer.")
    layers: int = Field(default=4, gt=0, description="Blocks of the transformer.")
    heads: int = Field(default=4, gt=0, description="Attention heads.")
    levels: Literal[1, 2] = Field(default=1, description="Codec levels that MusicLM gives.")
    seed: int = Field(default=0, ge=0, le=LARGEST_SEED, description="Seed of weights and crops.")
    checkpoint_minutes: float = Field(default=4.0, gt=0, description="Time between checkpoints, minutes.")


class QualityConfig(Stage):
    """`musicrl reward train quality`: regressor of mean opinion scores."""

    steps: int = Field(default=600, gt=0, description="Most training steps; early stopping may end sooner.")
    batch_size: int = Field(default=32, gt=0, description="Rated clips a step.")
    seconds: float = Field(default=5.0, gt=0, description="Length of a training crop, seconds.")
    width: int = Field(default=160, gt=0, description="Channels of the network.")
    blocks: int = Field(default=4, gt=0, description="Residual blocks of the network.")
    learning_rate: float = Field(default=1e-3, gt=0, description="Learning rate of AdamW.")
    weight_decay: float = Field(default=0.05, ge=0, description="Weight decay of AdamW.")
    validation: float = Field(default=0.15, gt=0, lt=1, description="Share of the clips held out.")
    eval_every: int = Field(default=25, gt=0, description="Steps between evaluations on held-out clips.")
    patience: int = Field(
        default=8, gt=0, description="Evaluations without a better held-out loss before training stops."
    )
    seed: int = Field(default=0, ge=0, le=LARGEST_SEED, description="Seed of weights, split and batches.")
    checkpoint_minutes: float = Field(default=5.0, gt=0, description="Time between checkpoints, minutes.")


class PreferenceConfig(Stage):
    """`musicrl reward train preference`: Bradley–Terry model of the listeners' votes."""

    base: str = Field(default="musiclm", description="Token model it starts from: an embedded part or a folder.")
    tune: Literal["head", "lora", "full"] = Field(
        default="lora", description="What is trained besides the head: nothing, adapters, or every weight."
    )
    lora_rank: int = Field(default=8, gt=0, description="Rank of the adapters.")
    steps: int = Field(default=600, gt=0, description="Most training steps; early stopping may end sooner.")
    batch_size: int = Field(default=32, gt=0, description="Pairs a step.")
    device_batch_size: int = Field(
        default=16, gt=0, description="Pairs in memory at once; changes speed, not the result."
    )
    learning_rate: float = Field(default=3e-4, gt=0, description="Learning rate of AdamW for adapters or weights.")
    head_learning_rate: float = Field(default=1e-3, gt=0, description="Learning rate of AdamW for the head.")
    weight_decay: float = Field(default=0.01, ge=0, description="Weight decay of AdamW.")
    validation: float = Field(default=0.15, gt=0, lt=1, description="Share of the prompts whose pairs are held out.")
    eval_every: int = Field(default=20, gt=0, description="Steps between evaluations on held-out pairs.")
    patience: int = Field(
        default=6, gt=0, description="Evaluations without a better held-out loss before training stops."
    )
    seed: int = Field(default=0, ge=0, le=LARGEST_SEED, description="Seed of weights, split and batches.")
    checkpoint_minutes: float = Field(default=5.0, gt=0, description="Time between checkpoints, minutes.")


class FinetuneConfig(Stage):
    """`musicrl finetune`: reinforcement learning of a policy on rewards."""

    policy: str = Field(
        default="base", description="Model to start from and to measure KL to: base, r, u, ru or a folder."
    )
    rewards: dict[str, float] = Field(
        default={"text_adherence": 1.0, "quality": 1.0}, description="Weight of each reward in the sum, by name."
    )
    scales: dict[str, tuple[float, float]] = Field(
        default={},
        description="Mean and deviation that standardise a reward, by name; measured on the start policy if not given.",
    )
    quality: str = Field(default="quality", description="Weights of the quality model: an embedded part or a folder.")
    preference: str = Field(
        default="preference", description="Weights of the preference model: an embedded part or a folder."
    )
    algorithm: Literal["rloo", "reinforce"] = Field(
        default="rloo", description="Baseline: mean of the prompt's other samples (rloo) or value network (reinforce)."
    )
    alpha: float = Field(
        default=0.1,
        ge=0,
        le=1,
        description="Weight of the KL, against 1 - alpha of the reward; a clip's reward against its KL.",
    )
    codebook_weights: tuple[float, ...] = Field(
        default=(1.0, 1.0, 0.25, 0.25),
        description="Weight of each codebook in the policy gradient; none for equal weights.",
    )
    steps: int = Field(default=80, gt=0, description="Policy updates.")
    prompts_per_step: int = Field(default=8, gt=0, description="Prompts sampled a step.")
    group_size: int = Field(default=8, gt=0, description="Samples per prompt (G).")
    seconds: float = Field(default=5.0, gt=0, description="Length of a sample, seconds.")
    temperature: float = Field(
        default=0.99, gt=0, description="Sampling temperature; scores are taken at the same one."
    )
    learning_rate: float = Field(default=5e-4, gt=0, description="Learning rate of AdamW.")
    value_learning_rate: float = Field(
        default=1e-4, gt=0, description="Learning rate of the value network (reinforce)."
    )
    warmup_steps: int = Field(default=5, ge=0, description="Steps over which the learning rates rise from 0.")
    max_grad_norm: float = Field(default=1.0, gt=0, description="Gradients are scaled down to this norm.")
    lora_rank: int = Field(default=16, gt=0, description="Rank of the adapters.")
    full: bool = Field(default=False, description="Train every weight instead of adapters.")
    kl_limit: float = Field(default=200.0, gt=0, description="Training ends when the KL of a clip passes this, nats.")
    device_batch_size: int = Field(
        default=16, gt=0, description="Clips in memory at once; changes speed, not the result."
    )
    seed: int = Field(default=0, ge=0, le=LARGEST_SEED, description="Seed of prompts and samples.")
    checkpoint_minutes: float = Field(default=5.0, gt=0, description="Time between checkpoints, minutes.")

    @model_validator(mode="after")
    def _groups_have_others(self) -> FinetuneConfig:
        if self.algorithm == "rloo" and self.group_size < 2:
            raise ValueError('rloo compares samples of one prompt; give group_size >= 2 or algorithm = "reinforce"')
        return self


class EvaluateConfig(Stage):
    """`musicrl evaluate`: models side by side on held-out prompts, rated by simulated raters."""

    models: tuple[str, ...] = Field(
        default=("base", "r", "u", "ru"), description="Models to compare, names or folders."
    )
    prompts: int = Field(default=100, gt=0, description="Held-out prompts; each model makes one clip of each.")
    raters: int = Field(default=30, gt=0, description="Size of the simulated rater population.")
    raters_per_prompt: int = Field(
        default=3, gt=0, description="Raters who hear each prompt, drawn from the population."
    )
    agreement: float = Field(
        default=0.75, gt=0.5, le=1, description="Agreement of two raters' labels that the noise is set to."
    )
    seconds: float = Field(default=5.0, gt=0, description="Length of a clip, seconds.")
    temperature: float = Field(default=0.99, gt=0, description="Sampling temperature.")
    examples: int = Field(default=6, ge=0, description="Prompts whose clips stand in the report.")
    seed: int = Field(default=1, ge=0, le=LARGEST_SEED, description="Seed of prompts, samples and raters.")

    @model_validator(mode="after")
    def _enough_raters(self) -> EvaluateConfig:
        if self.raters < self.raters_per_prompt:
            raise ValueError(f"{self.raters_per_prompt} raters per prompt cannot be drawn from {self.raters}")
        return self


class CollectConfig(Stage):
    """`musicrl preferences simulate`: pairs of clips, voted on by simulated users."""

    model: str = Field(default="base", description="Model that makes the clips.")
    prompts: int = Field(default=128, gt=0, description="Prompts, drawn from the training prompts.")
    clips_per_prompt: int = Field(default=4, gt=1, description="Clips of each prompt; every two of them make a pair.")
    seconds: float = Field(default=5.0, gt=0, description="Length of a clip, seconds.")
    temperature: float = Field(default=0.99, gt=0, description="Sampling temperature.")
    users: int = Field(default=60, gt=0, description="Size of the simulated user population.")
    votes_per_pair: int = Field(default=1, gt=0, description="Users who vote on each pair, drawn from the population.")
    agreement: float = Field(
        default=0.6, gt=0.5, le=1, description="Agreement of two users' labels that the noise is set to."
    )
    rated_prompts: int = Field(
        default=64, ge=0, description="Prompts whose first clip is rated for quality, once as it is and once degraded."
    )
    ratings_per_clip: int = Field(default=3, gt=0, description="Quality ratings of each rated clip.")
    seed: int = Field(default=0, ge=0, le=LARGEST_SEED, description="Seed of prompts, samples and users.")

    @model_validator(mode="after")
    def _enough_users(self) -> CollectConfig:
        if self.users < max(self.votes_per_pair, self.ratings_per_clip):
            raise ValueError(
                f"{self.votes_per_pair} votes a pair and {self.ratings_per_clip} ratings a clip cannot come from"
                f" {self.users} users"
            )
        return self


_SHORT: dict[str, Any] = {"group_size": 4, "learning_rate": 1e-3}
"""Few and large steps of half as many clips, for a circle of ten minutes."""


class QuickstartConfig(Stage):
    """`musicrl quickstart`: the whole circle. The defaults are small; recipes/alignment.toml is the same, longer."""

    collect: CollectConfig = Field(
        default=CollectConfig(prompts=80, votes_per_pair=2, rated_prompts=80), description="Pairs, votes and ratings."
    )
    quality: QualityConfig = Field(default=QualityConfig(steps=100), description="Quality model.")
    preference: PreferenceConfig = Field(
        default=PreferenceConfig(steps=60, batch_size=16), description="Preference model."
    )
    r: FinetuneConfig = Field(
        default=FinetuneConfig(rewards={"text_adherence": 2.0, "quality": 1.0}, steps=18, **_SHORT),
        description="MusicRL-R, from base.",
    )
    u: FinetuneConfig = Field(
        default=FinetuneConfig(rewards={"preference": 1.0}, steps=20, **_SHORT), description="MusicRL-U, from base."
    )
    ru: FinetuneConfig = Field(
        default=FinetuneConfig(rewards={"preference": 1.0}, steps=10, **_SHORT),
        description="MusicRL-RU, from R, KL measured to R.",
    )
    evaluate: EvaluateConfig = Field(default=EvaluateConfig(prompts=48), description="Side-by-side comparison.")


class ServeConfig(Stage):
    """`musicrl serve`: the feedback page."""

    host: str = Field(default="127.0.0.1", description="Address to listen on.")
    port: int = Field(default=8000, ge=0, le=65535, description="Port; 0 takes a free one.")
    public: bool = Field(
        default=False, description="Allow a host that other machines can reach; the page has no login."
    )
    store: str = Field(default="runs/preferences", description="Folder of the preference store.")
    models: tuple[str, ...] = Field(
        default=("base",),
        min_length=1,
        description="Models to listen to: one meets itself with another seed, of more two are drawn for each pair.",
    )
    seconds: float = Field(default=10.0, ge=1, le=10, description="Length of a clip, seconds.")


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
    "collect": CollectConfig,
    "quickstart": QuickstartConfig,
    "serve": ServeConfig,
}
"""Every stage by the name `musicrl config` knows it by."""
