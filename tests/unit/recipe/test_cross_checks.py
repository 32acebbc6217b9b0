"""Keys that do not go together are refused before anything is loaded, by the command as by its dry run."""

from __future__ import annotations

import pytest

from memfactory.cli.main import run
from memfactory.commands.graph import open_policy
from memfactory.core.errors import BadInput
from memfactory.recipe.cross_checks import remarks
from memfactory.recipe.load import load_recipe


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (
            ["sampler=openai"],
            "sampler.type: sampler 'openai' cannot take weights; use sampler=vllm or sampler=hf",
        ),
        (["sampler=scripted"], "sampler.type: sampler 'scripted' cannot take weights"),
        (["evaluation.sets=[5x]"], "evaluation.sets: there is no set '5x'; did you mean '4x'?"),
        (
            ["learner=deepspeed", "learner.offload_param=true"],
            "learner.offload_param needs learner.zero_stage 3",
        ),
        (["learner=deepspeed", "learner.dtype=bfloat16", "learner.zero_stage=0"], "learner.zero_stage 0"),
        (["sampler=vllm_server", "sampler.urls=[ftp://x]"], "sampler.urls[0]: expected an address"),
        (
            [
                "sampler=vllm_server",
                "sampler.servers=1",
                "sampler.devices=['0,0']",
                "sampler.tensor_parallel_size=2",
            ],
            "devices '0,0' are not tensor_parallel_size=2 different GPUs",
        ),
        (
            [
                "sampler=vllm_server",
                "sampler.servers=2",
                "sampler.devices=['0','1']",
                "sampler.tensor_parallel_size=2",
            ],
            "devices '0' are not tensor_parallel_size=2 different GPUs",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(overrides: list[str], told: str) -> None:
    with pytest.raises(BadInput) as caught:
        load_recipe("memagent", overrides, command="train")
    assert told in str(caught.value)


def test_remedies_that_are_printed_are_accepted() -> None:
    for remedy in ("sampler=vllm", "sampler=hf"):
        assert load_recipe("memagent", ["sampler=openai", remedy], command="train")
    assert load_recipe("memagent", ["sampler=openai"], command="eval")


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (
            ["agent.block_tokens=300"],
            "agent.block_tokens: a full prompt of module 'memory' and its reply are 332 tokens, the context has 256",
        ),
        (["agent.answer_tokens=256"], "agent.answer_tokens: 256 tokens leave nothing"),
        (["agent.block_tokens=240"], "agent.block_tokens: a full prompt of module 'memory' and its reply"),
        (["model.max_model_len=48"], "agent.block_tokens: a full prompt of module 'memory' and its reply"),
        (["agent=rag_bm25", "prompts=baselines", "agent.top_k=9"], "agent.top_k: a full prompt of module"),
    ],
)
def test_lengths_beyond_the_context_are_refused(overrides: list[str], told: str) -> None:
    with pytest.raises(BadInput) as caught:
        open_policy(load_recipe("memagent", overrides))
    assert told in str(caught.value)


def test_replies_of_modules_that_ask_no_model_may_be_of_any_length() -> None:
    """RMM's tiny recipes reflect, merge and answer without a model."""
    open_policy(load_recipe("rmm", ["agent.answer_tokens=4000", "agent.reranker_tokens=4000"]))
    with pytest.raises(BadInput, match=r"agent\.manager_tokens"):
        open_policy(load_recipe("memory_r1", ["agent.manager_tokens=4000"]))


def test_the_dry_run_and_the_command_say_the_same_of_this_machine(capsys: pytest.CaptureFixture[str]) -> None:
    for extra in (["--dry-run"], []):
        assert (
            run(["train", "memagent", "learner.liger=true", "learner.device=cpu", *extra, "-o", "nowhere"])
            == 2
        )
        assert "learner.liger needs a GPU" in capsys.readouterr().err


def test_what_may_not_be_meant_is_remarked() -> None:
    schema = load_recipe("memagent", ["trainer.steps=2", "trainer.eval_every=5"]).schema
    assert [line.split(" is ")[0] for line in remarks(schema)] == [
        "learner.warmup_steps 3",
        "trainer.eval_every 5",
    ]
    assert remarks(load_recipe("memagent").schema) == []
