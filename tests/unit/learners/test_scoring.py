"""Log-probs of the scorer against each model's own logits, row by row."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from memfactory.algorithms.rows import collate
from memfactory.core.errors import BadInput
from memfactory.learners.scoring import TokenScorer

from .models import plain_logprobs, random_model, random_rows

SCALED = {
    "gemma2": {"final_logit_softcapping": 3.0},
    "granite": {"logits_scaling": 4.0},
    "cohere": {"logit_scale": 0.3},
}


@pytest.mark.parametrize("chunk", [2**24, 300])
@pytest.mark.parametrize("kind", ["qwen3", "llama", "gemma2", "granite", "cohere"])
def test_scores_and_gradients_are_those_of_the_model(kind, chunk):
    model, rows = random_model(kind, **SCALED.get(kind, {})), random_rows(5)
    scorer = TokenScorer(model, chunk_logits=chunk)
    scorer.verify()

    weights = [torch.linspace(-1, 1, len(row.completion_ids)) for row in rows]
    expected = [plain_logprobs(model, row) for row in rows]
    sum((w * lp).sum() for w, lp in zip(weights, expected, strict=True)).backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()

    batch = collate(rows)
    logp, entropy = scorer(batch)
    torch.testing.assert_close(logp[batch.mask], torch.cat(expected), atol=2e-5, rtol=1e-4)
    (logp[batch.mask] * torch.cat(weights)).sum().backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[name], atol=2e-5, rtol=1e-3)

    row = rows[0]
    ids = torch.tensor([row.prompt_ids + row.completion_ids])
    distribution = torch.distributions.Categorical(logits=model(ids).logits[0, len(row.prompt_ids) - 1 : -1])
    torch.testing.assert_close(
        entropy[: len(row.completion_ids)], distribution.entropy(), atol=1e-4, rtol=1e-4
    )
    assert not entropy.requires_grad and (logp[~batch.mask] == 0).all()


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("kind", ["qwen3", "llama", "gemma2"])
def test_packed_rows_score_and_learn_like_padded_ones(kind, attention):
    model, rows = random_model(kind, **SCALED.get(kind, {})), random_rows(5)
    model.set_attn_implementation(attention)
    scorer = TokenScorer(model)
    scorer.verify(packed=True)
    results = []
    for packed in (False, True):
        batch = collate(rows, packed=packed)
        logp, entropy = scorer(batch)
        (logp[batch.mask] * torch.linspace(-1, 1, int(batch.mask.sum()))).sum().backward()
        results.append((logp, entropy, {name: p.grad.clone() for name, p in model.named_parameters()}))
        model.zero_grad()
    assert batch.input_ids.shape[0] == 1
    torch.testing.assert_close(results[1][0], results[0][0], atol=1e-5, rtol=0)
    torch.testing.assert_close(results[1][1], results[0][1], atol=1e-5, rtol=1e-5)
    for name, gradient in results[0][2].items():
        torch.testing.assert_close(results[1][2][name], gradient, atol=2e-5, rtol=1e-3)


def test_a_model_whose_packed_rows_see_each_other_is_refused():
    model = random_model()
    inner = model.model.forward
    # As a model does that knows nothing of positions that begin again.
    model.model.forward = lambda position_ids=None, **rest: inner(**rest)
    TokenScorer(model).verify()
    with pytest.raises(BadInput, match=r"learner\.packing"):
        TokenScorer(model).verify(packed=True)


def test_logits_of_all_tokens_never_exist():
    """Forward and backward: no tensor comes near the size of [tokens, vocabulary], unless one chunk may hold it."""
    largest = 0

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            nonlocal largest
            result = func(*args, **(kwargs or {}))
            made = result if isinstance(result, tuple | list) else (result,)
            largest = max([largest, *(t.numel() for t in made if isinstance(t, torch.Tensor))])
            return result

    model, batch = random_model(vocab_size=1999), collate(random_rows(24))
    logits = batch.targets.numel() * 1999
    for chunk, whole in ((8 * 1999, False), (2**24, True)):
        largest = 0
        with Watch():
            logp, _ = TokenScorer(model, chunk_logits=chunk)(batch)
            logp.sum().backward()
        assert largest == logits if whole else largest < logits / 3


def test_without_gradients():
    model, rows = random_model(), random_rows(5)
    with torch.no_grad():
        logp, _ = TokenScorer(model, chunk_logits=200)(collate(rows))
        expected = torch.cat([plain_logprobs(model, row) for row in rows])
    torch.testing.assert_close(logp[collate(rows).mask], expected, atol=2e-5, rtol=1e-4)


def test_a_model_that_changes_its_logits_otherwise_is_refused():
    model = random_model()
    forward = model.forward

    def changed(*args, **kwargs):
        output = forward(*args, **kwargs)
        output.logits = output.logits * 2
        return output

    model.forward = changed
    with pytest.raises(BadInput, match="qwen3"):
        TokenScorer(model).verify()
