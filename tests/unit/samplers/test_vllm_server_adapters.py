"""Adapters alone to servers, against stand-ins that speak vLLM's protocol over real sockets."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch

from memfactory.core.errors import BadInput, DiskError
from memfactory.learners.adapters import Adapter
from memfactory.samplers.base import figures_of, takes_adapters
from memfactory.samplers.vllm_server import VllmServerConfig, VllmServerSampler
from tests.unit.samplers.fake_vllm import FakeVllm
from tests.unit.samplers.test_vllm_server import expected, requests, sample, sampler_on, wait_until, weights

MATRIX = "base_model.model.layer.lora_A.default.weight"


@pytest.fixture
def fakes() -> Iterator[list[FakeVllm]]:
    with ExitStack() as stack:
        held = [stack.enter_context(FakeVllm()) for _ in range(2)]
        for fake in held:
            fake.facts |= {"adapter_rank": 8, "dtype": "float32"}
        yield held


@pytest.fixture
def sampler(fakes: list[FakeVllm]) -> Iterator[VllmServerSampler]:
    sampler = sampler_on([fake.url for fake in fakes], adapter_sync=True, lora_rank=4)
    yield sampler
    sampler.close()


def adapter(value: float) -> Adapter:
    return Adapter(4, 8, 0.0, ["layer"], {MATRIX: torch.full((4, 2), value)})


def value_of(fake: FakeVllm, name: str) -> float:
    return float(fake.adapters[name][MATRIX.replace(".default", "")][0, 0])


def test_each_sync_gives_all_servers_one_adapter_that_requests_name(
    fakes: list[FakeVllm], sampler: VllmServerSampler
) -> None:
    assert takes_adapters(sampler)
    sample(sampler, requests(4))
    assert [fake.asked_for for fake in fakes] == [[None, None], [None, None]]  # the weights they started with
    for count, version in enumerate((1, 2, 2), start=1):  # the same version comes again after an evaluation
        sampler.load_adapter(adapter(float(count)), version)
        assert sampler.policy_version == version
        for fake in fakes:
            (name,) = fake.adapters
            assert fake.weights == name and value_of(fake, name) == count and fake.resets == count
        completions = sample(sampler, requests(4))
        assert {c.policy_version for c in completions} == {version}
        assert all(fake.asked_for[-2:] == [fake.weights] * 2 for fake in fakes)
    assert all(not fake.loaded for fake in fakes)
    assert sampler._own_folder is not None
    assert [path.name for path in sampler._own_folder.iterdir()] == [f"adapter-{fakes[0].weights}"]
    with pytest.raises(RuntimeError, match="take adapters, not weights"):
        sampler.load_weights(weights(1.0).items(), 3)


def test_a_restarted_server_gets_the_current_adapter_before_it_counts(
    fakes: list[FakeVllm], sampler: VllmServerSampler
) -> None:
    sampler.load_adapter(adapter(3.0), 3)
    fakes[0].weights = "default"
    fakes[0].adapters.clear()
    wanted = requests(12)
    assert [c.token_ids for c in sample(sampler, wanted)] == expected(wanted)
    wait_until(lambda: fakes[0].weights == fakes[1].weights)
    assert value_of(fakes[0], fakes[0].weights) == 3.0
    assert figures_of(sampler)["servers/recoveries"] == 1


def test_adapters_of_others_stay_and_a_server_without_the_endpoint_is_told_what_it_needs(
    fakes: list[FakeVllm], sampler: VllmServerSampler
) -> None:
    for fake in fakes:
        fake.adapters["somebodys"] = {}
    for version in (1, 2):
        sampler.load_adapter(adapter(float(version)), version)
    assert all(set(fake.adapters) == {"somebodys", fake.weights} for fake in fakes)
    for fake in fakes:
        fake.facts["adapter_rank"] = 0
    with pytest.raises(BadInput, match=r"no /v1/load_lora_adapter; start it with: .*RUNTIME_LORA_UPDATING=1"):
        sampler.load_adapter(adapter(3.0), 3)


def test_without_a_rank_weights_are_sent(fakes: list[FakeVllm]) -> None:
    sampler = sampler_on([fakes[0].url], adapter_sync=True)
    assert not takes_adapters(sampler)
    sampler.load_weights(weights(1.0).items(), 1)
    assert len(fakes[0].loaded) == 1
    sampler.close()


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"adapter_rank": 2}, r"rank 2 at most, and learner\.lora_rank is 4; start it with VLLM_ALLOW"),
        ({"device": "cuda"}, r"sampler\.adapter_sync: .* set model\.dtype=bfloat16"),
    ],
)
def test_a_server_that_cannot_take_them_is_refused(
    fakes: list[FakeVllm], facts: dict[str, object], said: str
) -> None:
    fakes[1].facts |= facts
    with pytest.raises(BadInput, match=said):
        sampler_on([fake.url for fake in fakes], adapter_sync=True, lora_rank=4)
    sampler_on([fake.url for fake in fakes]).close()


def test_adapters_go_through_a_folder() -> None:
    with pytest.raises(ValueError, match="adapter_sync goes through a folder"):
        VllmServerConfig(servers=1, transfer="nccl", adapter_sync=True)


def test_a_full_disk_is_one_line(fakes: list[FakeVllm], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    sampler = sampler_on(
        [fakes[0].url], adapter_sync=True, lora_rank=4, weights_dir=str(tmp_path / "file" / "below")
    )
    with pytest.raises(DiskError, match=str(tmp_path)):
        sampler.load_adapter(adapter(1.0), 1)
    sampler.close()
