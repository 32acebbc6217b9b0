"""Every number of a recipe has bounds, every word of a few is one of them, and what lies outside is one line."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterator
from typing import Annotated, Any

import pytest

from memfactory.core import registry
from memfactory.core.bounds import AtLeastOne, Bounds, Device, Positive
from memfactory.core.errors import BadInput
from memfactory.data.readers.locomo import SPLITS as LOCOMO_SPLITS
from memfactory.data.readers.locomo import LocomoConfig
from memfactory.data.sources import DialoguesConfig, FactsConfig
from memfactory.data.synthetic import dialogue_traces, dialogues, facts, facts_traces
from memfactory.data.traces import DialogueTracesConfig, FactsTracesConfig
from memfactory.recipe.components import load_components
from memfactory.recipe.load import load_recipe
from memfactory.recipe.schema import RecipeSchema
from memfactory.recipe.validate import Validator
from memfactory.recipe.values import Invalid


def numbers(hint: Any, inside: tuple[Any, ...] = ()) -> Iterator[tuple[type, list[Bounds]]]:
    """Each number in a type, however deep, with the bounds that are declared for it."""
    if typing.get_origin(hint) is Annotated:
        base, *extras = typing.get_args(hint)
        yield from numbers(base, (*inside, *extras))
    elif hint in (int, float):
        yield hint, [extra for extra in inside if isinstance(extra, Bounds)]
    elif dataclasses.is_dataclass(hint) and isinstance(hint, type):
        for inner in typing.get_type_hints(hint, include_extras=True).values():
            yield from numbers(inner)
    elif typing.get_origin(hint) is not typing.Literal:
        for inner in typing.get_args(hint):
            yield from numbers(inner)


def configs() -> dict[str, type]:
    load_components()
    ours = {
        key: c for key, c in registry.everything().items() if c.build.__module__.startswith("memfactory.")
    }
    return {"recipe": RecipeSchema} | {f"{kind} {name}": c.config for (kind, name), c in ours.items()}


def test_every_number_has_bounds() -> None:
    missing = [
        f"{name}: {field}"
        for name, config in configs().items()
        for field in [field.name for field in dataclasses.fields(config)]
        for _, bounds in numbers(typing.get_type_hints(config, include_extras=True)[field])
        if not any((b.low, b.above) != (None, None) and (b.high, b.below) != (None, None) for b in bounds)
    ]
    assert not missing


def test_every_default_is_inside_its_bounds() -> None:
    load_components()
    for component in registry.everything().values():
        values = {}
        for field in dataclasses.fields(component.config):
            if field.default is not dataclasses.MISSING and not field.metadata.get("component"):
                values[field.name] = (
                    list(field.default) if isinstance(field.default, tuple) else field.default
                )
        hints = typing.get_type_hints(component.config, include_extras=True)
        for name, value in values.items():
            if not dataclasses.is_dataclass(value):
                Validator().value(value, hints[name], name)


@pytest.mark.parametrize(
    ("config", "field", "known"),
    [
        (FactsTracesConfig, "phase", facts_traces.PHASES),
        (DialogueTracesConfig, "phase", dialogue_traces.PHASES),
        (DialogueTracesConfig, "question", ("any", *dialogues.QUESTIONS)),
        (DialoguesConfig, "question", ("any", *dialogues.QUESTIONS)),
        (DialoguesConfig, "remembered", dialogues.REMEMBERED),
        (FactsConfig, "split", facts.SPLITS),
        (LocomoConfig, "split", LOCOMO_SPLITS),
    ],
)
def test_the_words_that_are_declared_are_those_that_are_known(config: type, field: str, known: Any) -> None:
    assert set(typing.get_args(typing.get_type_hints(config)[field])) == set(known)


@pytest.mark.parametrize(
    ("hint", "value", "problem"),
    [
        (AtLeastOne, 0, "must be at least 1, got 0"),
        (AtLeastOne, 2**31, "must be at most 2147483647"),
        (AtLeastOne, 1 << 20_000, "must be at most 2147483647, got a number of 20001 bits"),
        (AtLeastOne, True, "expected a whole number, got true"),
        (AtLeastOne, 1.0, "expected a whole number, got 1.0"),
        (AtLeastOne, "1", "expected a whole number, got '1'"),
        (Positive, 0, "must be more than 0"),
        (Positive, float("nan"), "expected a finite number, got nan"),
        (Positive, float("inf"), "expected a finite number, got inf"),
        (Positive, 10**400, "expected a finite number, got a number of 1329 bits"),
        (Positive | None, float("-inf"), "expected a finite number"),
        (list[Annotated[float, Bounds(0, below=1)]], [0.9, 1.0], "must be less than 1"),
        (Device, "tpu", "expected auto, cpu, cuda or cuda:N, got 'tpu'"),
        (Device, "cuda:", "expected auto, cpu, cuda or cuda:N"),
        (dict[str, Any], {"a": [1, {"b": float("nan")}]}, "expected a finite number"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_lies_outside_is_refused(hint: Any, value: Any, problem: str) -> None:
    with pytest.raises(Invalid) as caught:
        Validator().value(value, hint, "key")
    assert problem in str(caught.value)


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("learner.schedule=cosin", "learner.schedule: expected one of constant, linear, cosine"),
        ("learner.lr=-1", "learner.lr: must be at least 0"),
        ("learner.lr=nan", "learner.lr: expected a finite number"),
        ("learner.lr=inf", "learner.lr: expected a finite number"),
        ("learner.dtype=float8", "learner.dtype: expected one of float32, bfloat16"),
        ("learner.device=tpu", "learner.device: expected auto, cpu, cuda or cuda:N"),
        ("learner.betas=[0.9]", "learner.betas: betas must be two numbers"),
        ("learner.betas=[0.9,1]", "learner.betas[1]: must be less than 1"),
        ("learner.attention=flash", "learner.attention: expected one of sdpa"),
        ("learner.quantization=int8", "learner.quantization: expected one of nf4"),
        ("learner.lora_dropout=1", "learner.lora_dropout: must be less than 1"),
        ("learner.warmup_steps=-1", "learner.warmup_steps: must be at least 0"),
        ("learner.min_lr_ratio=2", "learner.min_lr_ratio: must be at most 1"),
        ("sampler.kv_cache_gb=0", "sampler.kv_cache_gb: must be more than 0"),
        ("sampler.gpu_memory_utilization=1.5", "sampler.gpu_memory_utilization: must be at most 1"),
        ("sampler.max_num_seqs=0", "sampler.max_num_seqs: must be at least 1"),
        (
            "sampler.tensor_parallel_size=2",
            "sampler.tensor_parallel_size: tensor_parallel_size 2 needs engines in processes of their own: "
            "sampler=vllm_server sampler.servers=1 sampler.tensor_parallel_size=2",
        ),
        ("agent.block_tokens=0", "agent.block_tokens: must be at least 1"),
        ("data.train.split=hold", "data.train.split: expected one of train, heldout"),
        ("data.train.two_fact_share=1.2", "data.train.two_fact_share: must be at most 1"),
        ("reward.answer.weight=nan", "reward.answer.weight: expected a finite number"),
        ("reward.answer.tail=0", "reward.answer.tail: must be at least 1"),
        ("seed=" + "9" * 5001, "seed: "),
        ("trainer.steps=" + "9" * 25, "trainer.steps: must be at most 2147483647"),
    ],
)
def test_a_wrong_value_is_refused_for_every_command(override: str, told: str) -> None:
    with pytest.raises(BadInput) as caught:
        load_recipe("memagent", [override])
    assert told in str(caught.value) and len(str(caught.value)) < 400


def test_the_remedy_for_tensor_parallelism_is_accepted() -> None:
    remedy = ["sampler=vllm_server", "sampler.servers=1", "sampler.tensor_parallel_size=2"]
    assert load_recipe("memagent", remedy, command="train").schema.sampler["tensor_parallel_size"] == 2
