"""Recipes that could not learn, or would learn another thing than they say, are refused with the key to change."""

from __future__ import annotations

import pytest

from memfactory.core.errors import BadInput
from memfactory.recipe.load import load_recipe

COMBINATIONS = [
    (loss, epochs, minibatches, staleness)
    for loss in ("ppo_clip", "gspo", "cispo", "reinforce")
    for epochs in (1, 2)
    for minibatches in (1, 2)
    for staleness in (0, 1)
]


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        (["sampling.train.temperature=0"], "sampling.train.temperature"),
        (["sampling.train.top_p=0.95"], "sampling.train.top_p"),
        (["sampling.train.top_k=50"], "sampling.train.top_k"),
        (["algorithm.group_size=1"], "algorithm.group_size: must be at least 2"),
        (["algorithm=dr_grpo", "algorithm.group_size=1"], "algorithm.group_size: must be at least 2"),
        (["algorithm=rloo", "algorithm.group_size=1"], "algorithm.group_size: must be at least 2"),
        (["algorithm=reinforce_pp", "algorithm.group_size=1"], "algorithm.group_size: must be at least 2"),
        (["algorithm=dapo", "algorithm.group_size=1"], "algorithm.group_size: must be at least 2"),
        (["algorithm=rloo", "algorithm.epochs=2"], "algorithm.epochs: with loss 'reinforce'"),
        (["algorithm=rloo", "algorithm.minibatches=4"], "algorithm.minibatches: with loss 'reinforce'"),
        (["algorithm.loss=reinforce", "algorithm.tis_cap=2", "algorithm.epochs=2"], "algorithm.epochs"),
        (["algorithm.tis_cap=0"], "algorithm.tis_cap"),
        (["algorithm.clip_low=0", "algorithm.clip_high=0"], "algorithm.clip_low"),
        (["reward.answer.weight=0"], "reward.answer.weight"),
        (["learner.lr=0"], "learner.lr"),
        (["learner=local_lora", "learner.lora_alpha=0"], "learner.lora_alpha"),
    ],
)
def test_what_cannot_learn_is_refused(changes: list[str], key: str) -> None:
    with pytest.raises(BadInput) as caught:
        load_recipe("memagent", changes, command="train")
    assert key in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("loss", "epochs", "minibatches", "staleness"), COMBINATIONS)
@pytest.mark.parametrize("cap", [None, 2])
def test_no_combination_is_off_policy_without_a_correction(
    loss: str, epochs: int, minibatches: int, staleness: int, cap: float | None
) -> None:
    """A ratio corrects for steps within an update, a truncated weight (asked for) for weights one step older."""
    changes = [
        f"algorithm.loss={loss}",
        f"algorithm.epochs={epochs}",
        f"algorithm.minibatches={minibatches}",
        f"trainer.max_staleness={staleness}",
        f"algorithm.tis_cap={'null' if cap is None else cap}",
    ]
    corrected = (loss != "reinforce" or epochs * minibatches == 1) and (cap is not None or not staleness)
    try:
        load_recipe("memagent", changes, command="train")
        refused = False
    except BadInput:
        refused = True
    assert refused != corrected


def test_other_commands_and_learners_are_free() -> None:
    free = ["sampling.train.temperature=0", "sampling.train.top_p=0.5", "algorithm.group_size=1"]
    for command in ("eval", "infer", None):
        load_recipe("memagent", free, command=command)  # type: ignore[arg-type]
    load_recipe("rmm", free, command="train")  # its policy is not trained: learner none
    load_recipe("sft_tiny", free, command="train")  # nobody samples
    load_recipe("memagent", ["sampling.eval.top_p=0.7", "sampling.train.temperature=0.7"], command="train")
