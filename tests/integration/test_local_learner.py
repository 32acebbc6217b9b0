"""The local learner on a random model: against a naive loop, across restarts, and what it refuses."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from memfactory.algorithms.losses import policy_loss
from memfactory.algorithms.objective import Objective
from memfactory.core.errors import BadInput, DiskError, UserError
from memfactory.core.types import Row
from memfactory.learners.local import LocalLearner
from tests.integration.launching import fork_server

from ..unit.learners.models import plain_logprobs, random_model, random_rows

LORA = {"lora_rank": 4, "lora_alpha": 8}
SUPERVISED = Objective(kind="reinforce")


def learner(**settings) -> LocalLearner:
    settings.setdefault("model", random_model())
    return LocalLearner(**{"lr": 1e-2, "device": "cpu", "micro_batch_tokens": 64, **settings})


def weights(of: LocalLearner) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in of.named_weights()}


def on_policy(of: LocalLearner, rows: list[Row]) -> list[Row]:
    scores = of.logprobs(rows)
    return [
        dataclasses.replace(row, behaviour_logprobs=tuple(s)) for row, s in zip(rows, scores, strict=True)
    ]


def trace_rows(rows: list[Row]) -> list[Row]:
    return [dataclasses.replace(row, behaviour_logprobs=(), advantage=1.0) for row in rows]


@pytest.mark.parametrize(
    "objective",
    [
        Objective(kl_coef=0.05),
        Objective(kind="gspo", denominator="call"),
        Objective(kind="cispo", denominator="rollout", tis_cap=1.5),
        Objective(denominator="constant", constant_length=7, minibatches=2, epochs=2, tis_cap=2.0),
    ],
)
def test_same_weights_as_a_naive_loop(objective):
    rows, model = random_rows(), random_model()
    mine = learner(reference=True, lr=1e-3, weight_decay=0.1, clip_norm=0.5)
    initial = random_model()
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for p in model.parameters() if p.dim() > 1], "weight_decay": 0.1},
            {"params": [p for p in model.parameters() if p.dim() < 2], "weight_decay": 0.0},
        ],
        lr=1e-3,
    )

    def scores(of, chosen):
        return [plain_logprobs(of, row) for row in chosen]

    def padded(values):
        width = max(map(len, values))
        return torch.stack([torch.nn.functional.pad(v, (0, width - len(v))) for v in values])

    with torch.no_grad():
        old = dict(zip(range(len(rows)), scores(model, rows), strict=True))
    halves = [[0, 1, 4, 5, 8, 9], [2, 3, 6, 7, 10, 11]] if objective.minibatches == 2 else [list(range(12))]
    losses = []
    for _ in range(objective.epochs):
        for half in halves:
            chosen = [rows[i] for i in half]
            with torch.no_grad():
                reference = padded(scores(initial, chosen)) if objective.kl_coef else None
            result = policy_loss(
                padded(scores(model, chosen)),
                padded([torch.tensor(row.behaviour_logprobs) for row in chosen]),
                torch.tensor([row.advantage for row in chosen]),
                padded([torch.ones(len(row.completion_ids)) for row in chosen]),
                kind=objective.kind,
                ref_logp=reference,
                kl_coef=objective.kl_coef,
                denominator=objective.denominator,
                constant_length=objective.constant_length,
                rollout_ids=torch.tensor([row.rollout_id for row in chosen]),
                tis_cap=objective.tis_cap,
                old_logp=padded([old[i] for i in half]) if objective.tis_cap else None,
            )
            result.loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            optimizer.step()
            optimizer.zero_grad()
            losses.append(result.loss.item())

    metrics = mine.update(rows, objective)
    assert metrics["loss"] == pytest.approx(sum(losses) / len(losses), rel=1e-4, abs=1e-5)
    assert metrics["steps"] == len(losses) == mine.step
    expected = dict(model.state_dict())
    for name, tensor in mine.named_weights():
        torch.testing.assert_close(tensor, expected[name], atol=5e-5, rtol=1e-3)


@pytest.mark.parametrize(
    "options", [{"micro_batch_tokens": 2000}, {"gradient_checkpointing": True}, {"packing": True}]
)
@pytest.mark.parametrize("lora", [{}, LORA])
def test_cutting_and_checkpointing_do_not_change_the_result(options, lora):
    rows = random_rows()
    results = []
    for settings in ({}, options):
        mine = learner(**lora, **settings, model=random_model(), lr=1e-3)
        metrics = mine.update(rows, Objective(denominator="rollout"))
        results.append((metrics, weights(mine)))
    for name in ("loss", "grad_norm", "entropy", "clip_fraction", "mismatch_kl", "completion_tokens"):
        assert results[0][0][name] == pytest.approx(results[1][0][name], rel=1e-4), name
    for name, tensor in results[0][1].items():
        torch.testing.assert_close(tensor, results[1][1][name], atol=5e-5, rtol=1e-3)


def test_on_policy_figures():
    mine = learner()
    rows = on_policy(mine, random_rows())
    metrics = mine.update(rows, Objective(tis_cap=2.0))
    assert metrics["ratio_mean"] == pytest.approx(1) == metrics["tis_weight_mean"]
    assert metrics["mismatch_kl"] == pytest.approx(0, abs=1e-6) == metrics["clip_fraction"]
    tokens = sum(len(row.completion_ids) for row in rows)
    mean = sum(row.advantage * len(row.completion_ids) for row in rows) / tokens
    assert metrics["loss"] == pytest.approx(-mean, abs=1e-5)
    assert metrics["completion_tokens"] == tokens and metrics["lr"] == 1e-2
    assert metrics["tokens"] == sum(len(row.prompt_ids) + len(row.completion_ids) - 1 for row in rows)
    assert "kl" not in metrics and 0 <= metrics["padding_share"] < 0.3


def test_supervised_traces_lower_the_negative_log_likelihood():
    mine = learner()
    rows = trace_rows(random_rows())
    scores = mine.logprobs(rows)
    expected = -sum(sum(s) for s in scores) / sum(len(s) for s in scores)
    first = mine.update(rows, SUPERVISED)
    assert first["loss"] == pytest.approx(expected, rel=1e-5)
    assert "mismatch_kl" not in first
    for _ in range(5):
        last = mine.update(rows, SUPERVISED)
    assert last["loss"] < first["loss"] - 0.3


@pytest.mark.parametrize("lora", [{}, LORA])
def test_reference_stays_at_the_initial_weights(lora):
    mine = learner(**lora, reference=True)
    rows, start = random_rows(), random_model()
    assert mine.update(rows, Objective(kl_coef=0.1))["kl"] == pytest.approx(0, abs=1e-6)
    assert mine.update(rows, Objective(kl_coef=0.1))["kl"] > 1e-4
    with torch.no_grad():
        expected = [plain_logprobs(start, row) for row in rows]
    for mine_scores, theirs in zip(mine._score_reference(rows, 1.0), expected, strict=True):
        torch.testing.assert_close(mine_scores, theirs, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("lora", [{}, LORA])
@pytest.mark.parametrize("tied", [True, False])
def test_named_weights_and_saved_folder_are_the_policy(tmp_path, lora, tied):
    from transformers import AutoModelForCausalLM

    rows = random_rows()
    mine = learner(model=random_model(tie_word_embeddings=tied), **lora)
    before = weights(mine)
    mine.update(rows, Objective())
    fresh = random_model(seed=5, tie_word_embeddings=tied)
    named = weights(mine)
    assert ("lm_head.weight" in named) is not tied
    missing, unexpected = fresh.load_state_dict(named, strict=False)
    assert not unexpected and missing == (["lm_head.weight"] if tied else [])
    assert any(not torch.equal(before[name], named[name]) for name in named)
    mine.save_policy(tmp_path / "final")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "final")
    with torch.no_grad():
        for row, scores in zip(rows, mine.logprobs(rows), strict=True):
            for model in (fresh, loaded):
                torch.testing.assert_close(
                    plain_logprobs(model, row), torch.tensor(scores), atol=3e-5, rtol=1e-4
                )
    assert set(load_file(tmp_path / "final" / "model.safetensors")) == set(named)


SETTINGS = {
    "full": {"schedule": "cosine", "warmup_steps": 1, "total_steps": 4, "weight_decay": 0.01},
    "lora": {**LORA, "lora_dropout": 0.3, "seed": 3},
}


def _run(settings: dict, load: Path | None, first: int, last: int, folder: Path) -> None:
    """Take steps first..last-1 from the initial weights or a saved state, and save."""
    mine = learner(**settings)
    if load:
        mine.load_state(load)
    for step in range(first, last):
        mine.update(random_rows(seed=step), Objective(tis_cap=2.0))
    mine.save_state(folder)


@pytest.mark.parametrize("kind", SETTINGS)
def test_two_and_two_steps_are_four_bit_for_bit_in_a_fresh_process(tmp_path, kind):
    _run(SETTINGS[kind], None, 0, 4, tmp_path / "four")
    torch.rand(7)  # whatever else draws from torch's generator must not matter
    _run(SETTINGS[kind], None, 0, 2, tmp_path / "two")
    arguments = (SETTINGS[kind], tmp_path / "two", 2, 4, tmp_path / "both")
    process = fork_server().Process(target=_run, args=arguments)
    process.start()
    process.join()
    assert process.exitcode == 0
    names = ("trainable.safetensors", "learner.json")
    for name in names:
        assert (tmp_path / "four" / name).read_bytes() == (tmp_path / "both" / name).read_bytes(), name
    assert (tmp_path / "two" / names[0]).read_bytes() != (tmp_path / "both" / names[0]).read_bytes()
    four, both = (torch.load(tmp_path / run / "optimizer.pt") for run in ("four", "both"))
    for index, moments in four.items():
        assert all(torch.equal(moments[key], both[index][key]) for key in moments)


def test_a_step_that_is_not_finite_leaves_the_weights_alone():
    mine = learner()
    rows = random_rows()
    mine.update(rows, Objective())
    before = weights(mine)
    bad = [dataclasses.replace(row, advantage=float("inf")) for row in rows]
    with pytest.raises(UserError, match="optimizer step 2"):
        mine.update(bad, Objective())
    assert all(torch.equal(before[name], tensor) for name, tensor in mine.named_weights())
    mine.update(rows, Objective())
    assert mine.step == 2


def test_bfloat16_autocast_keeps_float32_weights(tmp_path):
    for lora in ({}, LORA):
        mine = learner(dtype="bfloat16", lr=1e-3, **lora)
        reference = learner(lr=1e-3, **lora)
        rows = random_rows()
        for scores, exact in zip(mine.logprobs(rows), reference.logprobs(rows), strict=True):
            assert scores == pytest.approx(exact, abs=0.15)
        metrics = mine.update(rows, Objective())
        assert metrics["grad_norm"] == pytest.approx(
            reference.update(rows, Objective())["grad_norm"], rel=0.1
        )
        mine.save_state(tmp_path / "state")
        assert {t.dtype for t in load_file(tmp_path / "state" / "trainable.safetensors").values()} == {
            torch.float32
        }
        assert {tensor.dtype for _, tensor in mine.named_weights()} == {torch.bfloat16}


def test_rows_without_completion_are_skipped_and_none_means_no_step():
    mine = learner()
    rows = random_rows(4)
    empty = Row((3, 4), (), (), 1.0, 99)
    assert mine.logprobs([empty, rows[0]])[0] == []
    assert mine.update([empty], Objective())["steps"] == 0 == mine.step
    assert mine.update([], Objective(kl_coef=0.1))["loss"] == 0
    both = learner()
    assert mine.update([*rows, empty], Objective())["loss"] == both.update(rows, Objective())["loss"]


def test_what_is_refused(tmp_path):
    rows = random_rows()
    with pytest.raises(BadInput, match="log-probabilities"):
        learner().update(trace_rows(rows), Objective())
    with pytest.raises(BadInput, match="reference"):
        learner().update(rows, Objective(kl_coef=0.1))
    with pytest.raises(BadInput, match=r"learner\.schedule.*did you mean 'cosine'"):
        learner(schedule="cosin")
    with pytest.raises(BadInput, match="total number of steps"):
        learner(schedule="linear")
    with pytest.raises(BadInput, match=r"learner\.lora_targets"):
        learner(lora_rank=2, lora_targets=["nothing_like_this"])
    with pytest.raises(BadInput, match="cannot read"):
        learner().load_state(tmp_path)
    learner(**LORA).save_state(tmp_path / "lora")
    full = learner()
    before = weights(full)
    with pytest.raises(BadInput, match="another model or LoRA"):
        full.load_state(tmp_path / "lora")
    assert all(torch.equal(before[name], tensor) for name, tensor in full.named_weights())
    (tmp_path / "file").write_text("")
    with pytest.raises(DiskError):
        full.save_state(tmp_path / "file" / "below")
