"""Losses against numbers worked out by hand on a few tokens."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from memfactory.algorithms.losses import call_weights, k3, loss_part, mean_metrics, policy_loss

KINDS = ["ppo_clip", "gspo", "cispo", "reinforce"]
DENOMINATORS = ["token", "call", "rollout", "constant"]
# Two calls of three and one tokens; the ratios of their tokens are 1.5, 0.5, 1.1 and 0.7.
LOGP = torch.log(torch.tensor([[0.6, 0.2, 0.55], [0.35, 1.0, 1.0]]))
BEHAVIOUR = torch.log(torch.tensor([[0.4, 0.4, 0.5], [0.5, 1.0, 1.0]]))
MASK = torch.tensor([[1, 1, 1], [1, 0, 0]])
ADVANTAGES = torch.tensor([2.0, -1.0])
# min(ρA, clip(ρ)A): 1.2·2, 0.5·2, 1.1·2 and, for A = −1, min(−0.7, −0.8).
PPO_TERMS = [-2.4, -1.0, -2.2, 0.8]


def loss(**settings):
    return policy_loss(LOGP, BEHAVIOUR, ADVANTAGES, MASK, **settings)


def test_ppo_clip_by_hand():
    result = loss()
    assert result.loss.item() == pytest.approx(sum(PPO_TERMS) / 4)
    assert result.metrics["clip_fraction"] == pytest.approx(2 / 4)
    assert result.metrics["ratio_mean"] == pytest.approx((1.5 + 0.5 + 1.1 + 0.7) / 4)
    assert "kl" not in result.metrics


def test_asymmetric_clip():
    assert loss(clip_high=0.6).loss.item() == pytest.approx((-3.0 - 1.0 - 2.2 + 0.8) / 4)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"denominator": "call"}, ((-2.4 - 1.0 - 2.2) / 3 + 0.8) / 2),
        ({"denominator": "constant", "constant_length": 10}, sum(PPO_TERMS) / 20),
        ({"denominator": "rollout", "rollout_ids": torch.tensor([5, 5])}, sum(PPO_TERMS) / 4),
        (
            {"denominator": "rollout", "rollout_ids": torch.tensor([5, -1])},
            ((-2.4 - 1.0 - 2.2) / 3 + 0.8) / 2,
        ),
    ],
)
def test_denominators_by_hand(settings, expected):
    assert loss(**settings).loss.item() == pytest.approx(expected)


def test_rollout_denominator_means_over_all_tokens_of_a_rollout():
    weights = call_weights(torch.tensor([1, 3, 2, 0]), torch.tensor([8, 8, 3, 4]), "rollout")
    torch.testing.assert_close(weights, torch.tensor([1 / 8, 1 / 8, 1 / 4, 0]).double())


def test_gspo_by_hand():
    ratio = (1.5 * 0.5 * 1.1) ** (1 / 3)
    expected = (3 * -2 * ratio + 0.8) / 4
    assert loss(kind="gspo").loss.item() == pytest.approx(expected)
    logp = LOGP.clone().requires_grad_()
    policy_loss(logp, BEHAVIOUR, ADVANTAGES, MASK, kind="gspo", denominator="call").loss.backward()
    # d/dlogp of −A·s/2 with s = exp(mean of differences): −A·s/(2·3) at each token; the second call is clipped.
    torch.testing.assert_close(logp.grad, torch.tensor([[-2 * ratio / 6] * 3, [0.0] * 3]))


def test_cispo_by_hand():
    weights, logp = [1.2, 0.8, 1.1], LOGP[0].tolist()
    expected = (sum(-w * 2 * lp for w, lp in zip(weights, logp, strict=True)) + 0.8 * LOGP[1, 0].item()) / 4
    result = loss(kind="cispo")
    assert result.loss.item() == pytest.approx(expected)
    assert result.metrics["clip_fraction"] == pytest.approx(3 / 4)
    leaf = LOGP.clone().requires_grad_()
    policy_loss(leaf, BEHAVIOUR, ADVANTAGES, MASK, kind="cispo").loss.backward()
    torch.testing.assert_close(leaf.grad, torch.tensor([[-0.6, -0.4, -0.55], [0.2, 0, 0]]))


def test_reinforce_with_advantage_one_is_the_negative_log_likelihood():
    result = policy_loss(LOGP, torch.zeros_like(LOGP), torch.ones(2), MASK, kind="reinforce")
    assert result.loss.item() == pytest.approx(-math.log(0.6 * 0.2 * 0.55 * 0.35) / 4)


def test_k3_is_added_per_token_and_reported():
    reference = BEHAVIOUR
    kl = [1 / r - math.log(1 / r) - 1 for r in (1.5, 0.5, 1.1, 0.7)]
    result = loss(ref_logp=reference, kl_coef=0.3)
    assert result.loss.item() == pytest.approx((sum(PPO_TERMS) + 0.3 * sum(kl)) / 4)
    assert result.metrics["kl"] == pytest.approx(sum(kl) / 4)
    torch.testing.assert_close(k3(LOGP, reference)[0], torch.tensor(kl[:3]))


def test_truncated_importance_weight():
    old = LOGP.detach()
    result = loss(old_logp=old, tis_cap=1.2)
    weights = [1.2, 0.5, 1.1, 0.7]
    expected = sum(-w * a for w, a in zip(weights, [2, 2, 2, -1], strict=True)) / 4
    assert result.loss.item() == pytest.approx(expected)
    assert result.metrics["tis_weight_mean"] == pytest.approx(sum(weights) / 4)
    assert result.metrics["tis_capped"] == pytest.approx(1 / 4)
    assert result.metrics["ratio_mean"] == pytest.approx(1)
    # Without old_logp the ratio corrects for the sampler already: the cap changes nothing.
    assert loss(tis_cap=1.2).loss == loss().loss
    # Without a cap old_logp only moves the ratio's base.
    assert loss(old_logp=old).loss.item() == pytest.approx((-2 - 2 - 2 + 1) / 4)


def test_mismatch_kl_is_of_behaviour_to_the_old_policy():
    expected = sum(r - math.log(r) - 1 for r in (1.5, 0.5, 1.1, 0.7)) / 4
    assert loss().metrics["mismatch_kl"] == pytest.approx(expected)
    assert loss(old_logp=BEHAVIOUR).metrics["mismatch_kl"] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("denominator", DENOMINATORS)
def test_garbage_under_the_mask_changes_nothing(kind, denominator):
    settings = {
        "kind": kind,
        "denominator": denominator,
        "rollout_ids": torch.tensor([0, 1, 2]),
        "constant_length": 4,
        "kl_coef": 0.1,
        "tis_cap": 2.0,
    }
    mask = torch.cat([MASK, torch.zeros(1, 3, dtype=MASK.dtype)])
    advantages = torch.tensor([2.0, -1.0, math.nan])

    def run(filler):
        stacked = [
            torch.where(mask.bool(), torch.cat([x, x[:1]]), filler)
            for x in (LOGP, BEHAVIOUR, LOGP - 0.1, LOGP - 0.2)
        ]
        leaf = stacked[0].clone().requires_grad_()
        result = policy_loss(
            leaf, stacked[1], advantages, mask, ref_logp=stacked[2], old_logp=stacked[3], **settings
        )
        result.loss.backward()
        return result, leaf.grad

    clean, clean_grad = run(torch.tensor(0.0))
    for filler in (-math.inf, math.inf, math.nan, 1e30):
        result, grad = run(torch.tensor(filler))
        assert result.loss == clean.loss and result.metrics == clean.metrics
        assert torch.equal(grad, clean_grad) and torch.isfinite(grad).all()
    two = policy_loss(
        LOGP, BEHAVIOUR, ADVANTAGES, MASK, ref_logp=LOGP - 0.1, old_logp=LOGP - 0.2,
        **{**settings, "rollout_ids": torch.tensor([0, 1])},
    )  # fmt: skip
    assert clean.loss.item() == pytest.approx(two.loss.item())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("denominator", DENOMINATORS)
def test_nothing_unmasked_is_zero_with_a_graph(kind, denominator):
    for calls in (0, 2):
        leaf = torch.full((calls, 3), -math.inf, requires_grad=True)
        result = policy_loss(
            leaf, leaf.detach(), torch.ones(calls), torch.zeros(calls, 3), kind=kind, denominator=denominator,
            rollout_ids=torch.arange(calls), constant_length=4,
        )  # fmt: skip
        result.loss.backward()
        assert result.loss == 0 and leaf.grad.abs().sum() == 0
        assert all(math.isfinite(value) for value in result.metrics.values())


def test_an_absurd_ratio_stays_finite():
    leaf = torch.tensor([[-0.1]], requires_grad=True)
    result = policy_loss(leaf, torch.tensor([[-500.0]]), torch.tensor([-1.0]), torch.ones(1, 1))
    result.loss.backward()
    assert math.isfinite(result.loss.item()) and torch.isfinite(leaf.grad).all()


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_cut_batch_has_the_loss_and_gradient_of_the_whole(data):
    calls = data.draw(st.integers(1, 7))
    kind, denominator = data.draw(st.sampled_from(KINDS)), data.draw(st.sampled_from(DENOMINATORS))
    lengths = torch.tensor(data.draw(st.lists(st.integers(0, 5), min_size=calls, max_size=calls)))
    rollouts = torch.tensor(data.draw(st.lists(st.integers(0, 2), min_size=calls, max_size=calls)))
    cut = data.draw(st.integers(0, calls))
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 99)))
    logp, behaviour, old, ref = (
        -torch.rand(4, calls, 5, generator=generator, dtype=torch.float64) * 3
    ).unbind()
    advantages = torch.randn(calls, generator=generator)
    mask = torch.arange(5) < lengths[:, None]
    options = {"kind": kind, "kl_coef": 0.2, "tis_cap": 1.5}

    whole = logp.clone().requires_grad_()
    expected = policy_loss(
        whole, behaviour, advantages, mask, ref_logp=ref, old_logp=old, denominator=denominator,
        rollout_ids=rollouts, constant_length=6, **options,
    )  # fmt: skip
    expected.loss.backward()

    parts = logp.clone().requires_grad_()
    weights = call_weights(lengths, rollouts, denominator, 6)
    total, sums = 0.0, {}
    for chosen in (slice(0, cut), slice(cut, None)):
        part = loss_part(
            parts[chosen], behaviour[chosen], advantages[chosen], mask[chosen], weights[chosen],
            ref_logp=ref[chosen], old_logp=old[chosen], **options,
        )  # fmt: skip
        part.loss.backward()
        total += part.loss.item()
        sums = {name: sums.get(name, 0.0) + float(value) for name, value in part.sums.items()}
    assert total == pytest.approx(expected.loss.item(), abs=1e-9)
    torch.testing.assert_close(parts.grad, whole.grad)
    assert mean_metrics(sums) == pytest.approx(expected.metrics, abs=1e-5)


@pytest.mark.parametrize(
    "settings",
    [
        {"kind": "ppo"},
        {"denominator": "tokens"},
        {"denominator": "rollout"},
        {"denominator": "constant"},
        {"ref_logp": torch.zeros(1, 3), "kl_coef": 0.1},
        {"old_logp": torch.zeros(2, 2)},
    ],
)
def test_bad_arguments_are_refused(settings):
    with pytest.raises(ValueError):
        loss(**settings)
