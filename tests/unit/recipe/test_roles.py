"""Which role plays which module, and what is refused before anything is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from memfactory.commands import graph
from memfactory.commands.graph import divided
from memfactory.core.errors import BadInput
from memfactory.recipe.load import load_recipe
from memfactory.recipe.roles import called_in, other_roles, played_by, server_spec
from memfactory.recipe.schema import RoleConfig

SERVER = 'roles.big={openai: gpt-x, base_url: "http://127.0.0.1:9/v1", temperature: 0.5}'


@pytest.fixture(autouse=True)
def _no_openai(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


def roles(*changes: str, command: Any = "train") -> dict[str, RoleConfig]:
    return other_roles(load_recipe("memagent", changes, command=command).schema)


def test_by_default_the_policy_plays_everything() -> None:
    schema = load_recipe("memagent", command="train").schema
    assert played_by(schema) == {"memory": "policy", "answerer": "policy"}
    assert other_roles(schema) == {}


def test_naming_a_role_is_enough() -> None:
    assert roles("agent.roles.answerer=frozen") == {"frozen": RoleConfig()}
    assert RoleConfig().temperature == 0.0


def test_the_roles_key_refines(monkeypatch: pytest.MonkeyPatch) -> None:
    found = roles("agent.roles.answerer=frozen", "roles.frozen={path: smollm2, temperature: 0.2}", SERVER)
    assert found == {"frozen": RoleConfig(path="smollm2", temperature=0.2)}
    found = roles("agent.roles.answerer=big", SERVER)
    assert server_spec(found["big"])["base_url"] == "http://127.0.0.1:9/v1"
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:7/v1")
    found = roles("agent.roles.answerer=openai:org/gpt-4.1")
    assert server_spec(found["openai:org/gpt-4.1"]) == {
        "type": "openai",
        "model": "org/gpt-4.1",
        "base_url": "http://127.0.0.1:7/v1",
        "api_key_env": "OPENAI_API_KEY",
        "extra_body": {},
        "max_tokens_name": "max_tokens",
        "leave_out": (),
    }
    found = roles(
        "agent.roles.answerer=o", "roles.o={openai: o5, leave_out: [temperature], extra_body: {a: 1}}"
    )
    assert server_spec(found["o"])["leave_out"] == ("temperature",)
    assert server_spec(found["o"])["extra_body"] == {"a": 1}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            ["agent.roles.answerer=frozn"],
            "agent.roles.answerer: no role 'frozn'; roles: policy, frozen, openai:M",
        ),
        (["agent.roles.answerer=openai:"], "no role 'openai:'"),
        (["agent.roles.answrer=frozen"], "did you mean 'answerer'"),
        (
            ["agent.roles.answerer=bg", SERVER],
            "roles: policy, frozen, big, openai:MODEL; did you mean 'big'?",
        ),
        (
            ["agent.roles.answerer=x", "roles.x={openai: m, base_url: 'localhost:8000'}"],
            "base_url: 'localhost:8000' does not begin",
        ),
        (["agent.roles.answerer=openai:gpt-x"], "needs a key in the environment variable OPENAI_API_KEY"),
        (
            ["agent.roles={memory: frozen, answerer: frozen}"],
            "agent.roles: no module is played by the policy",
        ),
        (["roles.policy={temperature: 1}"], "roles.policy: the policy is set by model, sampler and sampling"),
        (["roles.x={openai: a, path: b}"], "roles.x.openai: "),
        (["roles.x={base_url: a}"], "roles.x.base_url: base_url needs openai"),
        (["roles.x={sampler: {type: openai}, path: a}"], "roles.x.path: path cannot be loaded by a server"),
        (["roles.x={temperature: -1}"], "roles.x.temperature: must be at least 0"),
        (["roles.x={pth: a}"], "did you mean 'path'"),
    ],
)
def test_what_cannot_be_is_one_line_that_names_the_key(changes: list[str], told: str) -> None:
    with pytest.raises(BadInput) as caught:
        roles(*changes)
    assert told in str(caught.value) and "\n" not in str(caught.value)


def test_a_server_loads_no_weights_of_a_role() -> None:
    changes = ["sampler=openai", "agent.roles.answerer=frozen", "roles.frozen.path=tiny"]
    with pytest.raises(
        BadInput, match=r"roles\.frozen\.path: sampler 'openai' is a server and loads no weights"
    ):
        roles(*changes, command="eval")


@pytest.mark.parametrize(
    "agent", ["memory_r1", "no_memory", "full_context", "rag_bm25", "rag_embedding", "oracle"]
)
def test_every_agent_has_roles(agent: str) -> None:
    prompts = "memory_r1" if agent == "memory_r1" else "baselines"
    changes = [f"agent={agent}", f"prompts={prompts}", "agent.roles.answerer=frozen"]
    recipe = load_recipe("memagent", changes, command="eval")
    assert played_by(recipe.schema)["answerer"] == "frozen"
    with pytest.raises(BadInput, match="no role 'nobody'"):
        load_recipe("memagent", [*changes, "agent.roles.answerer=nobody"], command="eval")


def test_beside_a_trained_policy_the_frozen_weights_must_be_named(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("model: {path: tiny}\n")
    policies = [tmp_path / "final", tmp_path / "checkpoints" / "step-3" / "policy"]
    for folder in policies:
        asked = [f"model.path={folder}", "agent.roles.answerer=frozen"]
        with pytest.raises(
            BadInput, match=r"would be played by .*, which .* trained; .* roles\.frozen\.path=tiny"
        ):
            roles(*asked, command="eval")
        assert roles(*asked, "roles.frozen.path=tiny", command="eval")["frozen"].path == "tiny"
        roles(*asked, command="train")  # the next training begins with them: those are its initial weights
    (tmp_path / "recipe.yaml").write_text("model: {path: tiny}\nroles: {frozen: {path: other}}\n")
    with pytest.raises(BadInput, match=r"roles\.frozen\.path=other"):
        roles(f"model.path={policies[0]}", "agent.roles.answerer=frozen", command="infer")


def test_engines_of_one_spec_divide_what_the_machine_has() -> None:
    spec = {"type": "vllm", "kv_cache_gb": 1.0, "gpu_memory_utilization": 0.5, "max_num_seqs": 256}
    assert divided(spec, 2) == {**spec, "kv_cache_gb": 0.5, "gpu_memory_utilization": 0.25}
    assert divided(spec, 1) == spec


def test_a_role_that_is_never_called_has_no_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """The answerer's stage has nothing to read; with dialogues beside it in an evaluation it has."""
    stage = ["agent.roles.extractor=frozen", "agent.roles.manager=frozen"]
    answerer = load_recipe("memory_r1_answerer", stage).schema
    assert set(other_roles(answerer)) == {"frozen"}
    assert called_in(answerer, training=True) == {}
    assert set(called_in(answerer, training=False)) == {"frozen"}
    read = load_recipe(
        "memory_r1_answerer", [*stage, "data.eval.all={type: dialogues, split: heldout}"]
    ).schema
    assert set(called_in(read, training=True)) == {"frozen"}
    asked = load_recipe("memory_r1_answerer", [*stage, "agent.roles.answerer=frozen"]).schema
    assert set(called_in(asked, training=True)) == {"frozen"}
    pairs = load_recipe("memory_r1_manager", ["data=dialogue_pairs", "agent.roles.extractor=frozen"]).schema
    assert set(called_in(pairs, training=True)) == {"frozen"}

    started: list[Any] = []
    monkeypatch.setattr(graph, "_start", lambda recipe, spec, *rest, **more: started.append(spec) or spec)
    monkeypatch.setattr(graph, "_require_finite", lambda *rest, **more: None)
    recipe = load_recipe("memory_r1_answerer", [*stage, "sampler.kv_cache_gb=1"])
    cast = graph.open_sampler(recipe, graph.open_policy(recipe), training=True)
    assert cast.others == {}
    assert [spec["kv_cache_gb"] for spec in started] == [1]  # and nothing of its memory is kept for another
