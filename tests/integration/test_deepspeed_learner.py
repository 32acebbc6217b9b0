"""DeepSpeed on one and two ranks gives the weights of the local learner; states move between all of them."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from memfactory.algorithms.objective import Objective
from memfactory.core.errors import BadInput, ParityError
from memfactory.core.ranks import Ranks
from memfactory.learners.local import LocalLearner
from memfactory.learners.rounding import rounding
from tests.integration.rank_processes import on_ranks

from ..unit.learners.models import random_model, random_rows

#: Odd sizes, so that nothing divides by two ranks; a norm's moments are cut in the middle.
MODEL = {"hidden_size": 33}
SETTINGS: dict[str, Any] = {
    "lr": 1e-3,
    "device": "cpu",
    "micro_batch_tokens": 128,
    "weight_decay": 0.1,
    "schedule": "linear",
    "total_steps": 20,
    "clip_norm": 0.5,
}
KINDS: dict[str, dict[str, Any]] = {
    "full": {},
    "lora": {"lora_rank": 3, "lora_alpha": 6},
    # Several optimizer steps an update, a reference model, old log-probs.
    "kl": {"reference": True},
}
OBJECTIVES = {
    "full": Objective(denominator="rollout"),
    "lora": Objective(denominator="rollout", temperature=1.3),
    "kl": Objective(kl_coef=0.05, tis_cap=2.0, minibatches=2, epochs=2, temperature=0.7),
}
#: name → ranks, fields of the deepspeed learner
CASES: dict[str, tuple[int, dict[str, Any]]] = {
    "1-zero2": (1, {"zero_stage": 2}),
    "2-zero2": (2, {"zero_stage": 2}),
    "2-zero3": (2, {"zero_stage": 3, "gradient_checkpointing": True}),
}
OTHERS: dict[str, dict[str, Any]] = {
    "zero0": {"zero_stage": 0},
    "zero1": {"zero_stage": 1},
    "zero2 offloaded": {"zero_stage": 2, "offload_optimizer": True},
    "zero3 offloaded": {"zero_stage": 3, "offload_optimizer": True, "offload_param": True},
}
NF4: dict[str, Any] = {"quantization": "nf4", "packing": True}
ROUNDED: dict[str, dict[str, Any]] = {"zero0": {"zero_stage": 0}, "zero2": {"zero_stage": 2}}
BFLOAT16 = {"zero1": {"zero_stage": 1}, "zero2": {"zero_stage": 2}, "zero3": {"zero_stage": 3}}
FIRST, LAST = 3, 5  # the state is saved between


def make(kind: str, ranks: Ranks | None = None, **fields: Any) -> Any:
    settings = {"model": random_model(**MODEL), **SETTINGS, **KINDS[kind], **fields}
    if ranks is None:
        return LocalLearner(**settings)
    from memfactory.learners.deepspeed import DeepSpeedLearner

    return DeepSpeedLearner(ranks=ranks, **settings)


def train(learner: Any, kind: str, first: int, last: int) -> dict[str, float]:
    for step in range(first, last):
        metrics = learner.update(random_rows(count=11 + step, seed=step), OBJECTIVES[kind])
    return metrics


def weights(learner: Any) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in learner.named_weights()}


def farthest(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    assert one.keys() == other.keys()
    return max((one[name].float() - other[name].float()).abs().max().item() for name in one)


def keep(folder: Path, name: str, ranks: Ranks, metrics: dict[str, float], tensors: Any) -> None:
    torch.save((metrics, tensors), folder / f"{name}-rank{ranks.rank}.pt")


def _cases(ranks: Ranks, folder: Path, local: Path, policy: Path) -> None:
    """Everything that needs these ranks, in one start of them."""
    import memfactory.learners.scoring as scoring

    for name, (world, fields) in CASES.items():
        if world != ranks.world:
            continue
        for kind in KINDS:
            whole = scoring.TokenScorer.__init__.__defaults__
            # A few tokens a chunk: ranks have different numbers of chunks.
            scoring.TokenScorer.__init__.__defaults__ = (None, 61 * 7)
            learner = make(kind, ranks, **fields)
            scoring.TokenScorer.__init__.__defaults__ = whole
            metrics = train(learner, kind, 0, FIRST)
            keep(folder, f"{name}-{kind}", ranks, metrics, weights(learner))
            learner.save_state(folder / f"{name}-{kind}-state")
            learner.save_policy(folder / f"{name}-{kind}-policy")
            # Rows of `logprobs` may differ by rank; a rank may have none.
            scores = learner.logprobs(random_rows(count=5 * ranks.rank, seed=7))
            train(learner, kind, FIRST, LAST)
            keep(folder, f"{name}-{kind}-on", ranks, {}, (weights(learner), scores))
            ranks.barrier()
            if kind == "kl":
                continue
            scoring.TokenScorer.__init__.__defaults__ = (None, 61 * 7)
            resumed = make(kind, ranks, **fields)
            scoring.TokenScorer.__init__.__defaults__ = whole
            resumed.load_state(folder / f"{name}-{kind}-state")
            train(resumed, kind, FIRST, LAST)
            keep(folder, f"{name}-{kind}-resumed", ranks, {}, weights(resumed))
            moved = make(kind, ranks, **fields)
            moved.load_state(local / f"{kind}-state")
            train(moved, kind, FIRST, LAST)
            keep(folder, f"{name}-{kind}-moved", ranks, {}, weights(moved))
    if ranks.world == 2:
        _others(ranks, folder)
        _rounded(ranks, folder, policy)
        _parity(ranks, folder, policy)
        _from_folder(ranks, folder, policy)


def _from_folder(ranks: Ranks, folder: Path, policy: Path) -> None:
    """ZeRO-3 from files, with a reference: whether the whole model was ever moved, and what both say of some rows."""
    from memfactory.learners.deepspeed_engine import ScoringModule

    moved: list[str] = []
    ScoringModule.to = lambda self, *rest, **more: moved.append("whole") or self  # type: ignore[method-assign]
    learner = make("kl", ranks, model=policy, zero_stage=3)
    del ScoringModule.to
    rows = random_rows(count=5, seed=3)
    scores = learner.logprobs(rows), [found.tolist() for found in learner._score_reference(rows, 1.0)]
    keep(folder, "from-folder", ranks, {"moved": float(len(moved))}, scores)
    found = {}
    for kind, dtype in (("full", "bfloat16"), ("lora", "float32")):
        learner = make(kind, ranks, model=policy, zero_stage=3, dtype=dtype)
        learner.update(rows, OBJECTIVES[kind])
        found[kind] = learner.rounding("bfloat16")
        learner.save_state(folder / f"rounding-{kind}")
    keep(folder, "rounding", ranks, {}, {kind: value and asdict(value) for kind, value in found.items()})


def _others(ranks: Ranks, folder: Path) -> None:
    for name, fields in OTHERS.items():
        learner = make("full", ranks, **fields)
        keep(folder, name, ranks, train(learner, "full", 0, FIRST), weights(learner))
    for name, fields in BFLOAT16.items():
        learner = make("full", ranks, dtype="bfloat16", **fields)
        metrics = train(learner, "full", 0, FIRST)
        learner.save_state(folder / f"bfloat16-{name}-state")
        keep(folder, f"bfloat16-{name}", ranks, metrics, weights(learner))


def _rounded(ranks: Ranks, folder: Path, policy: Path) -> None:
    """Adapters on a base in 4 bits, rows packed."""
    for name, fields in ROUNDED.items():
        learner = make("lora", ranks, model=policy, **NF4, **fields)
        keep(folder, f"nf4-{name}", ranks, train(learner, "lora", 0, FIRST), weights(learner))


def _parity(ranks: Ranks, folder: Path, policy: Path) -> None:
    """A sampler that keeps old weights on rank 1 alone stops both ranks."""
    from memfactory.learners.deepspeed import DeepSpeedLearner
    from memfactory.models.text import TextCodec
    from memfactory.samplers.hf import HfSampler
    from memfactory.samplers.sync import check_parity, sync_and_check

    learner = DeepSpeedLearner(model=policy, ranks=ranks, lr=1e-2, device="cpu", zero_stage=3)
    codec = TextCodec.from_folder(policy)
    sampler = HfSampler(device="cpu", model_folder=policy, codec=codec, max_model_len=128)
    prompts = [(11, 12, 13), (20, 21)]
    good = sync_and_check(sampler, learner, prompts, 1e-3, version=1, ranks=ranks)
    learner.update(random_rows(), Objective())
    if ranks.rank == 1:
        sampler.load_weights = lambda named, version: [None for _ in named]  # type: ignore[assignment]
    said = ""
    for check in (
        lambda: sync_and_check(sampler, learner, prompts, 1e-3, version=2, ranks=ranks),
        lambda: check_parity(sampler, learner, prompts, 1e-3, ranks=ranks),
    ):
        try:
            check()
        except ParityError as error:
            said += f"{error}; "
    (folder / f"parity-rank{ranks.rank}.txt").write_text(f"{good['sync/parity_max']} {said}")


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The local learner's results: by kind, metrics and weights after the first steps and after all."""
    folder, results = tmp_path_factory.mktemp("local"), {}
    for kind in KINDS:
        learner = make(kind)
        metrics = train(learner, kind, 0, FIRST)
        first = weights(learner)
        learner.save_state(folder / f"{kind}-state")
        scores = learner.logprobs(random_rows(count=5, seed=7))
        train(learner, kind, FIRST, LAST)
        results[kind] = (metrics, first, weights(learner), scores)
    return folder, results


@pytest.fixture(scope="module")
def ranks_ran(tmp_path_factory: pytest.TempPathFactory, local: Any, policy_folder: Path) -> Path:
    folder = tmp_path_factory.mktemp("ranks")
    for world in (1, 2):
        on_ranks(world, _cases, folder, local[0], policy_folder)
    return folder


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", CASES)
def test_same_weights_and_figures_as_the_local_learner(
    case: str, kind: str, ranks_ran: Path, local: Any
) -> None:
    expected, first, last, scores = local[1][kind]
    for rank in range(CASES[case][0]):
        metrics, tensors = torch.load(ranks_ran / f"{case}-{kind}-rank{rank}.pt")
        assert farthest(tensors, first) < 1e-5
        for name, value in expected.items():
            if "second" not in name and name != "padding_share":
                assert metrics[name] == pytest.approx(value, rel=1e-4, abs=1e-5), name
        _, (later, mine) = torch.load(ranks_ran / f"{case}-{kind}-on-rank{rank}.pt")
        assert farthest(later, last) < 2e-5
    assert len(mine) == 5 * (CASES[case][0] - 1)
    for one, other in zip(mine, scores[: len(mine)], strict=True):
        assert one == pytest.approx(other, abs=1e-4)
    saved = load_file(ranks_ran / f"{case}-{kind}-policy" / "model.safetensors")
    assert farthest(saved, torch.load(ranks_ran / f"{case}-{kind}-rank0.pt")[1]) == 0


@pytest.mark.parametrize("kind", ["full", "lora"])
@pytest.mark.parametrize("case", CASES)
def test_a_state_is_gone_on_with_bit_for_bit(case: str, kind: str, ranks_ran: Path) -> None:
    _, (expected, _) = torch.load(ranks_ran / f"{case}-{kind}-on-rank0.pt")
    _, resumed = torch.load(ranks_ran / f"{case}-{kind}-resumed-rank0.pt")
    assert farthest(expected, resumed) == 0


@pytest.mark.parametrize("kind", ["full", "lora"])
@pytest.mark.parametrize("case", CASES)
def test_states_move_between_learners_and_numbers_of_ranks(
    case: str, kind: str, ranks_ran: Path, local: Any
) -> None:
    last = local[1][kind][2]
    _, moved = torch.load(ranks_ran / f"{case}-{kind}-moved-rank0.pt")  # local → ranks
    assert farthest(moved, last) < 1e-5
    back = make(kind)
    back.load_state(ranks_ran / f"{case}-{kind}-state")  # ranks → local
    train(back, kind, FIRST, LAST)
    assert back.step == LAST
    assert farthest(weights(back), last) < 2e-5


@pytest.mark.parametrize("name", OTHERS)
def test_the_other_stages_and_offloading_give_the_same(name: str, ranks_ran: Path, local: Any) -> None:
    metrics, tensors = torch.load(ranks_ran / f"{name}-rank1.pt")
    assert farthest(tensors, local[1]["full"][1]) < 1e-5
    assert metrics["grad_norm"] == pytest.approx(local[1]["full"][0]["grad_norm"], rel=1e-4)


@pytest.mark.parametrize("name", BFLOAT16)
def test_bfloat16_keeps_float32_master_weights(name: str, ranks_ran: Path, local: Any) -> None:
    metrics, tensors = torch.load(ranks_ran / f"bfloat16-{name}-rank0.pt")
    assert {tensor.dtype for tensor in tensors.values()} == {torch.bfloat16}
    assert metrics["grad_norm"] == pytest.approx(local[1]["full"][0]["grad_norm"], rel=0.1)
    master = load_file(ranks_ran / f"bfloat16-{name}-state" / "trainable.safetensors")
    assert {tensor.dtype for tensor in master.values()} == {torch.float32}
    fine = sum(not torch.equal(tensor, tensor.bfloat16().float()) for tensor in master.values())
    assert fine == len(master)  # more digits than bfloat16 holds
    assert farthest(master, {name: tensors[name].float() for name in master}) < 2e-2


@pytest.mark.parametrize("name", ROUNDED)
def test_adapters_on_4_bits_and_packed_rows_give_the_same(
    name: str, ranks_ran: Path, policy_folder: Path
) -> None:
    alone = make("lora", model=policy_folder, **NF4)
    expected = train(alone, "lora", 0, FIRST)
    for rank in (0, 1):
        metrics, tensors = torch.load(ranks_ran / f"nf4-{name}-rank{rank}.pt")
        assert farthest(tensors, weights(alone)) < 1e-5
        assert metrics["loss"] == pytest.approx(expected["loss"], rel=1e-4, abs=1e-5)


def test_the_whole_model_is_never_moved_under_zero_3(ranks_ran: Path) -> None:
    for rank in range(2):
        metrics, (policy, reference) = torch.load(ranks_ran / f"from-folder-rank{rank}.pt")
        assert metrics == {"moved": 0.0}
        assert policy == reference


@pytest.mark.parametrize("kind", ["full", "lora"])
def test_what_rounding_costs_is_told_of_sharded_weights(
    ranks_ran: Path, policy_folder: Path, kind: str
) -> None:
    """From the optimizer's own weights, which began with what the model's files are in its type."""
    _, figures = torch.load(ranks_ran / "rounding-rank0.pt")
    assert torch.load(ranks_ran / "rounding-rank1.pt")[1] == {"full": None, "lora": None}
    if kind == "full":
        first = load_file(policy_folder / "model.safetensors")
        now = load_file(ranks_ran / "rounding-full" / "trainable.safetensors")
        pairs = [(first[name].bfloat16().float(), tensor) for name, tensor in now.items()]
        expected = rounding(pairs, torch.bfloat16)
    else:
        alone = make(kind, model=policy_folder)
        alone.load_state(ranks_ran / "rounding-lora")
        expected = alone.rounding("bfloat16")
    assert figures[kind].pop("dtype") == expected.dtype
    for name, value in figures[kind].items():
        assert value == pytest.approx(getattr(expected, name), rel=1e-3), name
    assert 0.01 < expected.lost < 10


def test_parity_counts_the_worst_rank_on_every_rank(ranks_ran: Path) -> None:
    for rank in (0, 1):
        worst, _, said = (ranks_ran / f"parity-rank{rank}.txt").read_text().partition(" ")
        assert float(worst) < 1e-3
        assert "did not arrive on rank 1: the sampler: 24 of 24 tensors differ" in said
        assert "disagree on rank 1 after" in said


def _refused(ranks: Ranks, folder: Path) -> None:
    said = []
    for kind, fields in (
        ("full", {"zero_stage": 7}),
        ("full", {"config_file": str(folder / "no.json")}),
        ("lora", {"zero_stage": 3, "lora_targets": ["lm_head"]}),
    ):
        with pytest.raises(BadInput) as caught:
            make(kind, ranks, model=random_model(tie_word_embeddings=False), **fields)
        said.append(str(caught.value))
    (folder / "mine.json").write_text('{"zero_optimization": {"stage": 1}, "gradient_clipping": "auto"}')
    learner = make("full", ranks, config_file=str(folder / "mine.json"))
    assert learner._engine.zero_optimization_stage() == 1
    assert learner._engine.gradient_clipping() == SETTINGS["clip_norm"]
    with pytest.raises(BadInput, match="another model"):
        make("lora", ranks).load_state(folder / "state")
    (folder / "said.txt").write_text("\n".join(said))


def test_what_is_refused_and_a_file_of_ones_own(tmp_path: Path) -> None:
    make("full").save_state(tmp_path / "state")
    on_ranks(1, _refused, tmp_path)
    said = (tmp_path / "said.txt").read_text().splitlines()
    assert len(said) == 3
    assert "learner.zero_stage" in said[0] and "no.json" in said[1] and "lora_targets" in said[2]
