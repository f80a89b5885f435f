"""Pretraining and finetuning."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

from lang1.config.checks import STRICT, TASK_IDS, TaskId, require
from lang1.config.monitoring import MonitorConfig
from lang1.errors import ConfigError


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW with linear warm-up and cosine decay, as in the paper; or Muon and another schedule (decision 14)."""

    name: Literal["adamw", "muon"] = "adamw"
    """adamw: the paper's; muon: Muon for the hidden matrices, AdamW for embeddings, norms and head"""
    schedule: Literal["cosine", "wsd"] = "cosine"
    """after the warm-up: cosine down to min_lr (5.3), or wsd: stable at lr, then a line down to min_lr"""
    decay_share: float = 0.2
    """wsd: share of all steps that the decay takes, at the end"""
    lr: float = 4e-4
    """peak learning rate; the paper gives none, 4e-4 is TinyLlama's"""
    min_lr: float = 4e-5
    """where the decay ends, at the last step (5.3)"""
    warmup_steps: int = 2000
    """linear warm-up, optimizer steps (5.3)"""
    beta1: float = 0.9
    beta2: float = 0.95
    eps: float = 1e-8
    weight_decay: float = 0.1
    clip: float | None = 1.0
    """gradient norm is clipped to this; null: no clipping"""
    muon_lr: float | None = None
    """muon: peak rate of the hidden matrices, whose rate follows the same schedule; null: lr, since an update is scaled
    to the size of AdamW's"""
    muon_momentum: float = 0.95
    """muon: share of the running mean that a step keeps (Nesterov's form)"""
    muon_weight_decay: float | None = None
    """muon: weight decay of the hidden matrices, times their rate; null: weight_decay"""
    muon_iterations: int = 5
    """muon: Newton-Schulz iterations an update"""
    muon_precision: Literal["bf16", "fp32"] = "bf16"
    """muon: number format of the Newton-Schulz iterations; torch.optim.Muon's is bf16"""

    __pydantic_config__ = STRICT

    def __post_init__(self) -> None:
        """Signs that would train nothing."""
        require(
            (self.lr > 0, "lr", "above 0"),
            (0 <= self.min_lr <= self.lr, "min_lr", "between 0 and lr"),
            (self.warmup_steps >= 0, "warmup_steps", "0 or more"),
            (0 < self.decay_share <= 1, "decay_share", "above 0 and at most 1"),
            (self.muon_lr is None or self.muon_lr > 0, "muon_lr", "above 0, or null for lr"),
            (0 <= self.muon_momentum < 1, "muon_momentum", "from 0 to below 1"),
            (1 <= self.muon_iterations < 100, "muon_iterations", "between 1 and 99"),
        )


Preset = Literal["tiny", "100m", "1b", "7b"]
EncoderPreset = Literal["encoder-tiny", "nyutron-109m"]


@dataclass(frozen=True)
class ShapeOverrides:
    """Dimensions that take the place of the preset's; null keeps the preset's."""

    hidden: int | None = None
    """width"""
    layers: int | None = None
    """depth"""
    heads: int | None = None
    """attention heads; the width is a multiple of twice as many"""
    kv_heads: int | None = None
    """key-value heads; the heads are a multiple of them"""
    ffn: int | None = None
    """width of the feed-forward part"""

    __pydantic_config__ = STRICT

    def __post_init__(self) -> None:
        """At least one of each."""
        require(*((value is None or value >= 1, key, "at least 1") for key, value in vars(self).items()))


@dataclass(frozen=True)
class PretrainConfig:
    """Next-token pretraining on a weighted mix of sources (5.3); of an encoder, masked language modelling."""

    preset: Literal[Preset, EncoderPreset] = "tiny"
    """shape of the model: tiny (the demo), 100m smol_llama-101M-GQA, 1b TinyLlama-1.1B, 7b Llama-2-7B; encoders, which
    learn masked tokens: encoder-tiny BERT-tiny, nyutron-109m BERT-base (docs/encoder.md)"""
    shape: ShapeOverrides | None = None
    """width and depth other than the preset's; null: the preset's"""
    init_from: str | None = None
    """folder of a Hugging Face causal language model (safetensors) whose weights training starts from, in place of the
    preset; the tokens must have been made with its tokenizer (tokenize.tokenizer). null: fresh weights"""
    context_length: int | None = None
    """positions a sequence; null: the preset's, or with init_from the model's"""
    mix: dict[str, float] = field(default_factory=lambda: {"clinical": 0.5, "web": 0.5})
    """weight a source of tokens; a source that the tokens folder lacks is dropped and the rest rescaled (logged)"""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    steps: int = 150_000
    """optimizer steps"""
    global_batch: int = 1024
    """sequences an optimizer step, all ranks"""
    micro_batch: int = 8
    """sequences a forward"""
    document_mask: bool = False
    """true: no attention across the documents of a block, positions restart at each; false: as in the paper, and the
    only way of an encoder"""
    mask_share: float = 0.15
    """encoders: share of a sequence's tokens that is asked for; of these 80 % are masked, 10 % another token, 10 % left
    as they are (BERT)"""
    val_every: int = 1000
    """steps between validation losses"""
    val_batches: int = 16
    """micro-batches a source in a validation"""
    patience: int = 0
    """stop early after so many validations without a lower loss; 0: never (5.3 names none)"""
    checkpoint_every: int = 1000
    """steps between resumable checkpoints"""
    keep_checkpoints: int = 3
    """newest checkpoints kept"""
    keep_every: int = 0
    """checkpoints of every so many steps are kept for good: the trajectory; 0: none"""
    sharding: Literal["gradients", "full"] = "gradients"
    """what several processes share out: gradients and optimizer state, or `full`, the parameters too (5.3); one process
    has nothing to share"""
    activation_checkpointing: bool = False
    """true: a layer's activations are computed again in the backward, for less memory and about a third more time"""
    compile: bool = False
    """true: torch.compile; needs a C++ compiler on a CPU"""
    precision: Literal["auto", "fp32", "bf16"] = "fp32"
    """fp32, or bf16 autocast over fp32 weights; auto: bf16 where the hardware multiplies it, else fp32"""
    threads: int = 0
    """CPU threads of torch; 0: one a core"""
    monitor: MonitorConfig = field(default_factory=MonitorConfig)

    __pydantic_config__ = STRICT

    def __post_init__(self) -> None:
        """The global batch is a whole number of micro-batches."""
        require(
            *(
                (getattr(self, name) >= 1, name, "at least 1")
                for name in (
                    "steps",
                    "global_batch",
                    "val_every",
                    "val_batches",
                    "checkpoint_every",
                    "keep_checkpoints",
                )
            ),
            *((getattr(self, name) >= 0, name, "0 or more") for name in ("patience", "keep_every", "threads")),
            (self.init_from is None or self.shape is None, "shape", "null with init_from, whose shape is the model's"),
            (0 < self.mask_share < 1, "mask_share", "between 0 and 1"),
            *(
                (self.preset not in get_args(EncoderPreset) or not getattr(self, name), name, why)
                for name, why in (
                    ("document_mask", "false for an encoder"),
                    ("init_from", "null for an encoder: it starts from fresh weights"),
                    ("compile", "false for an encoder"),
                )
            ),
            *(
                (
                    self.preset not in get_args(EncoderPreset) or not getattr(self.monitor, name).every,
                    f"monitor.{name}.every",
                    "0 for an encoder, which answers no prompt",
                )
                for name in ("generations", "evaluations")
            ),
            (
                self.micro_batch >= 1 and self.global_batch % self.micro_batch == 0,
                "micro_batch",
                f"a divisor of global_batch ({self.global_batch})",
            ),
            (
                bool(self.mix) and all(w >= 0 for w in self.mix.values()) and sum(self.mix.values()) > 0,
                "mix",
                "weights of 0 or more with a sum above 0",
            ),
        )

    def accumulation(self, ranks: int) -> int:
        """Micro-batches an optimizer step on one of `ranks` processes. Raises ConfigError when they do not divide."""
        if ranks < 1 or self.global_batch % (self.micro_batch * ranks):
            raise ConfigError(
                f"pretrain.global_batch: {self.global_batch} is no multiple of micro_batch ({self.micro_batch}) times "
                f"{ranks} processes"
            )
        return self.global_batch // (self.micro_batch * ranks)


@dataclass(frozen=True)
class LoraConfig:
    """Low-rank adapters, in the paper's configuration (Appendix I; Hu et al. 2021, arXiv:2106.09685)."""

    r: int = 8
    """rank of an adapter"""
    alpha: float = 16
    """an adapter's output is multiplied by alpha / r"""
    dropout: float = 0.05
    """share of an adapter's inputs that a training step sets to zero"""
    targets: tuple[str, ...] = ("q_proj", "v_proj")
    """last part of the names of the modules that get an adapter; a model that names them otherwise is refused"""

    __pydantic_config__ = STRICT

    def __post_init__(self) -> None:
        """Something to train."""
        require(
            (self.r >= 1, "r", "at least 1"),
            (self.alpha > 0, "alpha", "above 0"),
            (0 <= self.dropout < 1, "dropout", "from 0 to below 1"),
            (bool(self.targets) and all(self.targets), "targets", "at least one module name"),
        )


@dataclass(frozen=True)
class SweepConfig:
    """Search of the learning rate before finetuning (5.4): `lang1 sweep`."""

    trials: int = 5
    """rates that are tried, drawn log-uniformly"""
    steps: int = 100
    """optimizer steps a trial: the first ones of the schedule that the finetuning itself would follow"""
    lowest: float = 1e-6
    """lowest rate that may be drawn"""
    highest: float = 1e-3
    """highest rate that may be drawn"""

    __pydantic_config__ = STRICT

    def __post_init__(self) -> None:
        """A range to draw from."""
        require(
            (self.trials >= 1, "trials", "at least 1"),
            (self.steps >= 1, "steps", "at least 1"),
            (0 < self.lowest <= self.highest, "lowest", "above 0 and at most highest"),
        )


@dataclass(frozen=True)
class FinetuneConfig:
    """Multiple-choice finetuning (5.4)."""

    tasks: tuple[TaskId, ...] = TASK_IDS
    """one task, or several for joint finetuning with an even mix a batch"""
    init: Literal["pretrained", "random"] = "pretrained"
    """random: the same architecture from fresh weights, the twin that shows what pretraining gave"""
    method: Literal["full", "lora"] = "full"
    """full: all parameters; lora: low-rank adapters alone, for models that memory keeps from the other (Appendix I)"""
    lora: LoraConfig = field(default_factory=LoraConfig)
    """used with method: lora"""
    examples: int | None = None
    """training rows a task, classes in their shares, the fewer among the more; null: all. For data-efficiency curves"""
    optimizer: OptimizerConfig = field(
        default_factory=lambda: OptimizerConfig(
            lr=1e-4,
            min_lr=0.0,
            warmup_steps=0,
            beta1=0.9,
            beta2=0.999,
            eps=1e-5,
            weight_decay=0.02,
            clip=None,
        )
    )
    batch_size: int = 64
    """rows an optimizer step, all tasks and processes together; ours, the paper gives none"""
    max_steps_per_task: int = 5120
    """optimizer steps, times the number of tasks when joint (5.4)"""
    val_every: int = 100
    """steps between validations"""
    val_rows: int = 2000
    """validation rows a task, drawn by hash; early stop reads them"""
    patience_steps: int = 300
    """stop when validation micro-AUROC has not risen for so many steps (5.4); with several tasks their mean, with two
    options the AUROC of option B, which is what scikit-learn's micro average gives for them"""
    balance: Literal["none", "sqrt", "even"] = "none"
    """how training rows are drawn within a task: none, as they come (the paper); sqrt or even, rare classes more
    often, with the option logits corrected for it in the loss so that probabilities stay those of the cohort"""
    share_notes: bool = True
    """tasks that ask about the same note read it together: the same answers for fewer tokens"""
    batch_tokens: int = 8192
    """prompt tokens a forward, padding included; a Llama on a CPU reads none, and at most 2,048"""
    max_note_tokens: int = 512
    """the note's head is kept to so many tokens, the question never cut (5.4, docs/paper-to-code.md)"""
    sharding: Literal["gradients", "full"] = "gradients"
    """what several processes share out: gradients and optimizer state, or `full`, the parameters too"""
    activation_checkpointing: bool = False
    """true: a layer's activations are computed again in the backward, for less memory and about a third more time"""
    precision: Literal["auto", "fp32", "bf16"] = "fp32"
    """fp32, or bf16 autocast over fp32 weights; auto: bf16 where the hardware multiplies it, else fp32"""
    threads: int = 0
    """CPU threads of torch; 0: one a core"""

    __pydantic_config__ = STRICT

    def __post_init__(self) -> None:
        """Sizes that a training loop can walk."""
        require(
            (bool(self.tasks), "tasks", "at least one task"),
            *(
                (getattr(self, name) >= 1, name, "at least 1")
                for name in (
                    "batch_size",
                    "max_steps_per_task",
                    "val_every",
                    "val_rows",
                    "patience_steps",
                    "max_note_tokens",
                    "batch_tokens",
                )
            ),
            (self.examples is None or self.examples >= 1, "examples", "at least 1, or null for all"),
            (self.threads >= 0, "threads", "0 or more"),
        )
