"""The keys of a recipe, their types and defaults. Nothing here behaves: the rest of the program reads it.

A block that picks a component (`sampler`, `learner`, ...) is a mapping `{type: <registered name>, ...}`;
its other keys are the fields of that component's own dataclass (`memfactory components` lists them).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from memfactory.algorithms.objective import AdvantageMethod, Denominator, LossKind
from memfactory.core.address import check_address
from memfactory.core.bounds import AtLeastOne, Bounds, Count, NotNegative, Positive, Seed, Share, TorchDevice
from memfactory.core.registry import component_field
from memfactory.evaluation.metrics import MetricName
from memfactory.models.chat_parameters import check_parameters
from memfactory.recipe.names import check_folder, check_name


@dataclass(frozen=True)
class ModelConfig:
    """The policy.

    `path` is a folder, a hub id, or an alias that ships (`tiny`, `smollm2`). `max_model_len` bounds prompt +
    completion in tokens (null: what the model allows). `chat_template_kwargs` go to the chat template.
    LoRA, autocast and gradient checkpointing belong to the learner.
    """

    path: str
    dtype: Literal["float32", "bfloat16"] = "float32"
    max_model_len: AtLeastOne | None = None
    chat_template_kwargs: dict[str, Any] = field(default_factory=dict)
    trust_remote_code: bool = False


@dataclass(frozen=True)
class Draw:
    """How completions are drawn. `temperature` 0 is greedy, `top_k` 0 is no limit.

    For training the temperature must be above 0 and nothing cut by `top_p` or `top_k`: see `recipe.learnable`.
    """

    temperature: NotNegative = 1.0
    top_p: Share = 1.0
    top_k: Count = 0


@dataclass(frozen=True)
class SamplingConfig:
    """How completions are drawn in training and in eval / infer."""

    train: Draw = Draw()
    eval: Draw = Draw(temperature=0.0)


@dataclass(frozen=True)
class RoleConfig:
    """A model beside the policy, for modules to name as their role; it is never trained.

    With `openai` (a model's name) it is a server at `base_url` (null: the environment's OPENAI_BASE_URL, else OpenAI's
    own), with the key in the environment variable `api_key_env`, asked with `extra_body`, `max_tokens_name` and
    `leave_out` as the sampler `openai`. Otherwise it is the weights of `path` (null: `model.path`), frozen. `sampler`
    is an engine with settings of its own; null is one like the policy's.
    """

    path: str | None = None
    openai: str | None = None
    base_url: str | None = None
    api_key_env: str = "OPENAI_API_KEY"
    max_model_len: AtLeastOne | None = None
    temperature: NotNegative = 0.0
    top_p: Share = 1.0
    top_k: Count = 0
    sampler: dict[str, Any] | None = field(default=None, metadata={"component": "sampler"})
    extra_body: dict[str, Any] = field(default_factory=dict)
    max_tokens_name: str = "max_tokens"
    leave_out: tuple[str, ...] = ()

    @property
    def is_server(self) -> bool:
        """Whether a server plays it, not weights that are loaded here."""
        return self.openai is not None or (self.sampler or {}).get("type") == "openai"

    def __post_init__(self) -> None:
        if self.openai is not None and (self.path is not None or self.sampler is not None):
            raise ValueError("openai is a server, path and sampler are of an engine here; keep one of them")
        if self.openai is None and self.base_url is not None:
            raise ValueError("base_url needs openai, the name of a model there")
        if self.base_url is not None:
            check_address(self.base_url)
        check_parameters(self.max_tokens_name, self.leave_out, self.extra_body)
        if self.openai is None and (
            self.extra_body or self.leave_out or self.max_tokens_name != "max_tokens"
        ):
            raise ValueError(
                "extra_body, max_tokens_name and leave_out need openai; a sampler has fields of its own"
            )
        if self.is_server and self.path is not None:
            raise ValueError("path cannot be loaded by a server; leave it out")


@dataclass(frozen=True)
class AlgorithmConfig:
    """Advantage, loss and how often a batch is used.

    `group_size` rollouts are made of each task. `drop_zero_variance` leaves groups without any difference in
    reward out of the update; `dynamic_sampling` draws further tasks for them.
    """

    advantages: AdvantageMethod = "grpo"
    group_size: AtLeastOne = 8
    loss: LossKind = "ppo_clip"
    clip_low: NotNegative = 0.2
    clip_high: NotNegative = 0.2
    kl_coef: NotNegative = 0.0
    denominator: Denominator = "token"
    constant_length: AtLeastOne | None = None
    tis_cap: Positive | None = None
    epochs: AtLeastOne = 1
    minibatches: AtLeastOne = 1
    drop_zero_variance: bool = True
    dynamic_sampling: bool = False

    def __post_init__(self) -> None:
        if self.denominator == "constant" and self.constant_length is None:
            raise ValueError("constant_length is needed with denominator 'constant'")
        if self.dynamic_sampling and not self.drop_zero_variance:
            raise ValueError(
                "dynamic_sampling draws for groups that are dropped; it needs drop_zero_variance"
            )


@dataclass(frozen=True)
class RewardConfig:
    """One named reward: a registered component, its weight, and the modules it pays (null: all)."""

    component: dict[str, Any] = field(metadata={"component": "reward", "inline": True})
    weight: Annotated[float, Bounds(-1e6, 1e6)] = 1.0
    modules: tuple[str, ...] | None = None


@dataclass(frozen=True)
class DataConfig:
    """Where tasks come from: one source to train on, and named held-out sets."""

    train: dict[str, Any] | None = field(default=None, metadata={"component": "data"})
    eval: dict[str, dict[str, Any]] = field(
        default_factory=dict, metadata={"component": "data", "each": True}
    )


@dataclass(frozen=True)
class TrainerConfig:
    """The training loop.

    A checkpoint is saved every `save_every` steps, the newest `keep_last` stay. At least `log_rollouts`
    rollouts a step are written as text, in whole groups. The run stops when log-probs of sampler and
    learner differ by more than `parity_threshold` (null: 0.01 in float32, 0.5 in bfloat16).
    `eval_every` 0 is never. With `max_staleness` 1 the rollouts of a step are made by the weights before the last
    update, while that update runs (`algorithm.tis_cap` weighs them).
    """

    steps: AtLeastOne = 100
    tasks_per_step: AtLeastOne = 8
    save_every: AtLeastOne = 10
    keep_last: AtLeastOne = 2
    log_rollouts: Count = 2
    parity_threshold: NotNegative | None = None
    eval_before: bool = False
    eval_after: bool = True
    eval_every: Count = 0
    max_staleness: Annotated[int, Bounds(0, 1)] = 0


@dataclass(frozen=True)
class BertScoreConfig:
    """The model of the metric `bertscore`: a hub id or a folder, and its layer (null: the package knows it).

    `device` is where torch runs it.
    """

    model: str = "roberta-large"
    layers: AtLeastOne | None = None
    device: TorchDevice = "cpu"


@dataclass(frozen=True)
class EvaluationConfig:
    """`repeats` rollouts of each task, of at most `limit` tasks a set (null: all), `concurrency` at once.

    `sets` are the names of the sets to score (null: all).
    `metrics` are the columns beside the rewards (null: EM, sub-EM, F1, and the metric that all tasks of a set name);
    a benchmark brings its own. The first `log_rollouts` rollouts of a
    set keep their prompts and replies in the result.
    """

    repeats: AtLeastOne = 1
    limit: AtLeastOne | None = None
    sets: tuple[str, ...] | None = None
    concurrency: AtLeastOne = 64
    metrics: tuple[MetricName, ...] | None = None
    log_rollouts: Count = 2
    bertscore: BertScoreConfig = field(default_factory=BertScoreConfig)

    def __post_init__(self) -> None:
        if self.metrics == ():
            raise ValueError("metrics must name at least one")


@dataclass(frozen=True)
class RecipeSchema:
    """A complete recipe. `name` defaults to the recipe file's name, `output_dir` to `runs/<name>`.

    `plugins` are Python files that register components, relative to the recipe or the working folder.
    `roles` are models beside the policy, by the names that `agent.roles` uses. `prompts` go to the agent.
    `benchmark` is the name of the benchmark that `data.eval` comes from, if it does.
    """

    name: str
    output_dir: str
    model: ModelConfig
    stage: Literal["rl", "sft"] = "rl"
    seed: Seed = 0
    plugins: tuple[str, ...] = ()
    sampler: dict[str, Any] = component_field("sampler", "vllm")
    sampling: SamplingConfig = SamplingConfig()
    learner: dict[str, Any] = component_field("learner", "local")
    algorithm: AlgorithmConfig = AlgorithmConfig()
    agent: dict[str, Any] = component_field("agent", "memagent")
    roles: dict[str, RoleConfig] = field(default_factory=dict)
    prompts: dict[str, str] = field(default_factory=dict)
    environment: dict[str, Any] = component_field("environment", "long_context")
    data: DataConfig = DataConfig()
    reward: dict[str, RewardConfig] = field(default_factory=dict)
    trainer: TrainerConfig = TrainerConfig()
    benchmark: str | None = None
    evaluation: EvaluationConfig = EvaluationConfig()
    tracker: dict[str, Any] = component_field("tracker", "none")

    def __post_init__(self) -> None:
        check_name(self.name)
        check_folder(self.output_dir)
