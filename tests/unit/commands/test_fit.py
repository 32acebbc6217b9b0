"""The memory estimate: against published sizes, sums worked out by hand, and every GPU recipe."""

from __future__ import annotations

import pytest

from memfactory import assets
from memfactory.cli.main import run
from memfactory.commands.fit import GIB, Gpus, estimate, parse_gpus
from memfactory.commands.fit_advice import advice
from memfactory.core.errors import BadInput
from memfactory.learners.memory_estimate import LearnerLayout, adapter_parameters, learner_memory
from memfactory.models.architecture import KNOWN, ModelShape, find_shape
from memfactory.recipe.load import load_recipe

#: Two layers of width 4; nothing in it is realistic, so that it can be added up by hand.
SHAPE = ModelShape(
    parameters=1000,
    layers=2,
    hidden=4,
    intermediate=8,
    vocabulary=10,
    query=4,
    key_value=2,
    tied=True,
    query_norm=False,
    positions=64,
    linear=(("layers.0.q_proj", 4, 4), ("layers.0.up_proj", 4, 8)),
)

#: Parameters in thousands of millions, from the models' cards.
CARDS = {
    "Qwen/Qwen3-1.7B": 1.72,
    "Qwen/Qwen3-4B-Instruct-2507": 4.02,
    "Qwen/Qwen2.5-7B-Instruct": 7.62,
    "Qwen/Qwen2.5-14B-Instruct": 14.77,
    "meta-llama/Llama-3.1-8B-Instruct": 8.03,
}


@pytest.mark.parametrize("name", KNOWN)
def test_known_models_have_the_parameters_of_their_cards(name: str) -> None:
    assert find_shape(name).parameters / 1e9 == pytest.approx(CARDS[name], abs=0.005)


def test_full_fine_tuning_by_hand() -> None:
    parts = learner_memory(SHAPE, LearnerLayout(micro_batch_tokens=3, reference=True))
    assert parts["weights"] == parts["gradients"] == parts["reference"] == 4000
    assert parts["optimizer"] == 8000
    # norms 6 x 4, query, key, value and output 2 x 4 + 2 x 2, gate to product 4 x 8: 68 values a layer; 3 x 4 after
    assert parts["activations"] == 3 * 4 * (2 * 68 + 12)
    # three copies of 3 x 10 logits and two gradients of the embedding are more than two intermediate vectors
    assert parts["one layer or logits"] == 4 * (3 * 30 + 2 * 40)


def test_zero_stages_shard_what_they_say() -> None:
    def parts(stage: int, **changes: object) -> dict[str, float]:
        layout = LearnerLayout(world=4, sharded=True, dtype="bfloat16", zero_stage=stage, **changes)  # type: ignore[arg-type]
        return learner_memory(SHAPE, layout)

    got = [[parts(s)[k] for k in ("weights", "gradients", "optimizer")] for s in (1, 2, 3)]
    assert got == [[2000, 4000, 3000], [2000, 1000, 3000], [500, 1000, 3000]]
    away = parts(3, offload_optimizer=True, offload_param=True)
    assert {"weights", "gradients", "optimizer"}.isdisjoint(away)
    assert away["host: weights"] == 500


def test_adapters_by_hand() -> None:
    assert adapter_parameters(SHAPE, LearnerLayout(lora_rank=2)) == 2 * (8 + 12)
    assert adapter_parameters(SHAPE, LearnerLayout(lora_rank=2, lora_targets=["up_proj"])) == 2 * 12


def test_four_bits_by_hand() -> None:
    parts = learner_memory(SHAPE, LearnerLayout(lora_rank=2, quantization="nf4", micro_batch_tokens=1))
    # 48 weights of linear layers: half a byte, a byte for each 64 and 4 more for each 256 of those; 40 of adapters
    assert parts["weights"] == 48 * (1 / 2 + 1 / 64 + 4 / 16384) + 952 * 4 + 40 * 4
    assert parts["gradients"] == 40 * 4
    plain = learner_memory(SHAPE, LearnerLayout(lora_rank=2, micro_batch_tokens=1))
    # the largest linear layer, 4 x 8, whole while it is used; that is more than the logits of one token
    assert plain["one layer or logits"] == 4 * 3 * 10 and parts["one layer or logits"] == 4 * (2 * 8 + 4 * 8)


def test_the_recipes_quantization_is_what_is_estimated() -> None:
    found = []
    for more in ([], ["learner.zero_stage=2", "learner.quantization=nf4"]):
        recipe = load_recipe("gpu/memagent_qwen2.5_7b", ["learner=deepspeed_lora", *more], command="infer")
        found.append(estimate(recipe, Gpus("L4", 1, 24 * GIB))[1])
    assert found[1].layout.quantization == "nf4"
    assert found[1].learner["weights"] < found[0].learner["weights"] / 2.5


def test_four_bits_are_the_last_advice() -> None:
    recipe = load_recipe("gpu/memagent_qwen2.5_7b", command="infer")
    gpus = parse_gpus("5090-32G", None)
    changes = advice(*estimate(recipe, gpus))
    assert changes is not None and any("learner.quantization=nf4" in change for change in changes)
    overrides = [word for change in changes for word in change.split()]
    assert estimate(load_recipe("gpu/memagent_qwen2.5_7b", overrides, command="infer"), gpus)[1].fits


@pytest.mark.parametrize(
    ("spec", "wanted"),
    [
        ("8xH100-80G", Gpus("H100", 8, 80 * GIB)),
        ("A100-80G", Gpus("A100", 1, 80 * GIB)),
        ("4090-24G", Gpus("4090", 1, 24 * GIB)),
        ("H200-141G", Gpus("H200", 1, 141 * GIB)),
    ],
)
def test_gpus_are_read(spec: str, wanted: Gpus) -> None:
    assert parse_gpus(spec, None) == wanted


@pytest.mark.parametrize("spec", ["", "H100", "0xH100-80G", "8x", "H100-80", "8xH100-0G", "-8xH100-80G"])
def test_other_gpus_are_refused(spec: str) -> None:
    with pytest.raises(BadInput, match="--gpus"):
        parse_gpus(spec, None)


def test_gpus_and_ranks_must_agree() -> None:
    with pytest.raises(BadInput, match="--nproc says 4"):
        parse_gpus("8xH100-80G", None, nproc=4)


@pytest.mark.parametrize("name", [name for name in assets.recipe_names() if name.startswith("gpu/")])
def test_every_gpu_recipe_can_be_made_to_fit_on_eight_gpus(name: str) -> None:
    recipe = load_recipe(name, command="infer")
    shape, found = estimate(recipe, parse_gpus("8xH100-80G", None))
    changes = advice(shape, found)
    assert changes is not None
    overrides = [word for change in changes for word in change.split()]
    assert estimate(load_recipe(name, overrides, command="infer"), found.gpus)[1].fits


@pytest.mark.parametrize(
    ("name", "spec", "nodes"),
    [
        ("gpu/memagent_qwen3_1.7b", "H100-80G", 1),
        ("gpu/memagent_qwen3_4b", "H100-80G", 1),
        ("gpu/memagent_qwen2.5_7b", "8xH100-80G", 1),
        ("gpu/memagent_qwen2.5_7b", "8xH100-80G", 2),
        ("gpu/memagent_qwen2.5_14b", "8xH100-80G", 1),
        ("gpu/memagent_qwen2.5_14b", "8xH100-80G", 2),
        ("gpu/memory_r1_llama3.1_8b", "8xH100-80G", 1),
        ("gpu/memory_r1_llama3.1_8b_answerer", "8xH100-80G", 1),
        ("gpu/memory_r1_qwen2.5_7b", "8xH100-80G", 1),
        ("gpu/memory_r1_qwen2.5_7b_answerer", "8xH100-80G", 1),
        ("gpu/rmm_linear_qwen2.5_7b", "H100-80G", 1),
        ("gpu/rmm_policy_qwen3_1.7b", "8xH100-80G", 1),
    ],
)
def test_recipes_fit_where_their_heads_say(name: str, spec: str, nodes: int) -> None:
    assert estimate(load_recipe(name, command="infer"), parse_gpus(spec, None, 1, nodes))[1].fits


def test_room_for_one_context_is_not_enough() -> None:
    """Qwen2.5-14B: 48 layers x 8 heads x 128 x 2 x 2 bytes a token; 29.54 GB of weights and 1.5 GiB beside them."""
    gpus = Gpus("H100", 8, 80 * GIB)
    small = estimate(load_recipe("gpu/memagent_qwen2.5_14b", ["sampler.gpu_memory_utilization=0.39"]), gpus)[
        1
    ]
    room = 0.39 * 80 * GIB - 2 * 14.77e9 - 1.5 * GIB
    assert small.engines is not None
    assert small.engines.contexts(gpus) == pytest.approx(room / (48 * 8 * 128 * 4 * 8192), rel=0.01)
    assert small.total < gpus.usable and not small.fits


def test_the_command_needs_a_dry_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["train", "gpu/memagent_qwen3_1.7b", "--gpus", "H100-80G"]) == 2
    assert "add --dry-run" in capsys.readouterr().err
    assert run(["train", "gpu/memagent_qwen3_1.7b", "--dry-run", "--gpu-memory", "24"]) == 0
    assert "does not fit" in capsys.readouterr().out


def test_a_sampler_that_sleeps_by_hand() -> None:
    """Its memory and the learner's activations are never held at once; what stays with the learner is."""
    gpus = Gpus("H100", 1, 80 * GIB)
    name = "gpu/memagent_qwen3_1.7b"
    awake = estimate(load_recipe(name), gpus)[1]
    asleep = estimate(load_recipe(name, ["sampler.sleep=true"]), gpus)[1]
    parts = awake.learner
    updating = sum(parts.values()) + 1.5 * GIB
    kept = sum(parts[part] for part in ("weights", "optimizer", "reference")) + 1.5 * GIB
    assert awake.total == pytest.approx(updating + 0.4 * 80 * GIB)
    assert asleep.total == pytest.approx(max(updating + 1.5 * GIB, kept + 0.4 * 80 * GIB))
    assert asleep.total < awake.total


def test_sleep_is_the_first_advice_unless_rollouts_run_beside_updates() -> None:
    gpus = Gpus("H100", 1, 64 * GIB)
    ahead = ["trainer.max_staleness=1", "algorithm.tis_cap=2"]
    shape, first = estimate(load_recipe("gpu/memagent_qwen3_1.7b"), gpus)
    words = advice(shape, first)
    assert words is not None and words[0] == "sampler.sleep=true"
    assert estimate(load_recipe("gpu/memagent_qwen3_1.7b", words), gpus)[1].fits
    shape, first = estimate(load_recipe("gpu/memagent_qwen3_1.7b", ahead), gpus)
    words = advice(shape, first)
    assert words is not None and "sampler.sleep=true" not in words
    assert estimate(load_recipe("gpu/memagent_qwen3_1.7b", [*ahead, *words]), gpus)[1].fits
