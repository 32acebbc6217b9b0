"""The sampler over servers, against stand-ins that speak vLLM's protocol over real sockets."""

from __future__ import annotations

import asyncio
import http.server
import json
import math
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from memfactory.core.errors import BadInput, ParityError, ServiceError, TaskError
from memfactory.core.http import Reply
from memfactory.core.types import Completion, SamplingParams, SamplingRequest
from memfactory.models.text import ByteCodec
from memfactory.samplers.base import engines_of, figures_of
from memfactory.samplers.router import ServerFailed
from memfactory.samplers.server_process import ServerProcess, free_port
from memfactory.samplers.transfer_proof import transfer
from memfactory.samplers.vllm_client import VllmClient
from memfactory.samplers.vllm_server import VllmServerConfig, VllmServerSampler
from memfactory.samplers.weight_transfer import GpuTransfer, chunks
from tests.raw_server import drip, raw
from tests.unit.samplers.fake_vllm import FakeVllm, tokens


@pytest.fixture
def fakes() -> Iterator[list[FakeVllm]]:
    with ExitStack() as stack:
        yield [stack.enter_context(FakeVllm()) for _ in range(2)]


def sampler_on(urls: Sequence[str], **options: Any) -> VllmServerSampler:
    return VllmServerSampler(
        urls=urls,
        model_folder=Path("unused"),
        codec=ByteCodec(),
        max_model_len=64,
        **{"wait_s": 5.0, "timeout_s": 5.0, **options},
    )


@pytest.fixture
def sampler(fakes: list[FakeVllm]) -> Iterator[VllmServerSampler]:
    sampler = sampler_on([fake.url for fake in fakes])
    yield sampler
    sampler.close()


def requests(count: int) -> list[SamplingRequest]:
    return [
        SamplingRequest((1, 2, n % 7), SamplingParams(max_tokens=4), seed=n, label=f"call {n}")
        for n in range(count)
    ]


def sample(sampler: Any, wanted: Sequence[SamplingRequest]) -> list[Completion]:
    async def main() -> list[Completion]:
        return await asyncio.gather(*(sampler.sample(request) for request in wanted))

    return asyncio.run(main())


def expected(wanted: Sequence[SamplingRequest]) -> list[tuple[int, ...]]:
    return [tuple(tokens(list(r.prompt_ids), r.seed, r.params.max_tokens)) for r in wanted]


def weights(value: float) -> dict[str, torch.Tensor]:
    table = torch.full((3, 2), value)
    return {"embed.weight": table, "head.weight": table, "norm.weight": table[0]}


def test_ids_logprobs_and_version_come_back(fakes: list[FakeVllm], sampler: VllmServerSampler) -> None:
    wanted = requests(30)
    completions = sample(sampler, wanted)
    assert [c.token_ids for c in completions] == expected(wanted)
    assert completions[0].logprobs == tuple(-i / 8 for i in completions[0].token_ids)
    assert {c.policy_version for c in completions} == {0}
    assert {len(fake.answered) for fake in fakes} == {15}


def test_all_servers_get_the_weights_and_forget_their_prefixes(
    fakes: list[FakeVllm], sampler: VllmServerSampler
) -> None:
    for version in (1, 2, 2):
        sampler.load_weights(weights(float(version)).items(), version)
    for fake in fakes:
        assert [set(map(float, held["norm.weight"])) for held in fake.loaded] == [{1.0}, {2.0}, {2.0}]
        assert set(fake.loaded[0]) == set(weights(1.0))  # tied tensors are written as two
        assert fake.resets == 3  # the same version again must empty the caches too
    assert fakes[0].weights == fakes[1].weights
    assert sampler.policy_version == 2
    assert {c.policy_version for c in sample(sampler, requests(4))} == {2}
    assert sampler._own_folder is not None
    assert len(list(sampler._own_folder.iterdir())) == 1  # only the newest weights stay
    sampler.close()
    assert not sampler._own_folder.exists()


def test_weights_are_written_in_the_servers_type(fakes: list[FakeVllm], tmp_path: Path) -> None:
    sampler = sampler_on([fakes[0].url], dtype="bfloat16", weights_dir=str(tmp_path / "shared"))
    sampler.load_weights(weights(1.5).items(), 1)
    assert fakes[0].loaded[0]["embed.weight"].dtype == torch.bfloat16
    assert [path.name.split("-")[0] for path in (tmp_path / "shared").iterdir()] == ["policy"]
    sampler.close()


def test_a_server_that_takes_no_weights_is_found_out(
    fakes: list[FakeVllm], sampler: VllmServerSampler
) -> None:
    learner: Any = SimpleNamespace(named_weights=lambda: iter(weights(2.0).items()))
    figures = transfer(sampler, learner, version=1)
    assert figures == {"sync/tensors_compared": float(len(weights(2.0))), "sync/tensors_unread": 0.0}
    transfer(sampler, learner, version=1, changed=True)
    fakes[1].fault = "deaf"
    with pytest.raises(ParityError, match=f"weights of version 2 did not arrive: {fakes[1].url}: 3 of 3"):
        transfer(sampler, learner, version=2)


def test_a_server_of_another_type_is_refused(fakes: list[FakeVllm]) -> None:
    fakes[1].facts["dtype"] = "float16"
    with pytest.raises(BadInput, match=r"computes in float16, .* start it with --dtype float32"):
        sampler_on([fake.url for fake in fakes])


def test_a_server_with_other_weights_gets_the_current_ones_before_it_counts(
    fakes: list[FakeVllm], sampler: VllmServerSampler
) -> None:
    """What a restart does to a server that the user keeps: it is healthy, and has its first weights again."""
    sampler.load_weights(weights(3.0).items(), 3)
    fakes[0].weights = "default"
    wanted = requests(12)
    completions = sample(sampler, wanted)
    assert [c.token_ids for c in completions] == expected(wanted)
    wait_until(lambda: fakes[0].weights == fakes[1].weights)  # the other answered; it loads meanwhile
    assert len(fakes[0].loaded) == 2
    assert float(fakes[0].loaded[1]["norm.weight"][0]) == 3.0
    assert figures_of(sampler)["servers/recoveries"] == 1
    assert figures_of(sampler)["servers/retries"] >= 1


@pytest.mark.parametrize("fault", ["broken", "garbage", "empty", "cut", "abort"])
def test_whatever_a_server_does_instead_of_answering_another_answers(
    fakes: list[FakeVllm], sampler: VllmServerSampler, fault: str
) -> None:
    fakes[0].fault = fault
    recover = sampler._servers[0].recover

    def heal() -> None:
        fakes[0].fault = None
        recover()

    sampler._servers[0].recover = heal  # type: ignore[method-assign]
    wanted = requests(10)
    assert [c.token_ids for c in sample(sampler, wanted)] == expected(wanted)
    assert figures_of(sampler)["servers/retries"] >= 1  # it may be back before the others have left


def test_a_refused_request_is_a_matter_of_the_task(fakes: list[FakeVllm], sampler: VllmServerSampler) -> None:
    fakes[0].fault = fakes[1].fault = "refuse"
    with pytest.raises(TaskError, match=r"call 0: .* refused it: prompt is too long"):
        sample(sampler, requests(1))
    with pytest.raises(TaskError, match=r"exceeds max_model_len 64"):
        sample(sampler, [SamplingRequest((1,) * 60, SamplingParams(max_tokens=5), 0)])


def test_each_server_can_be_checked(fakes: list[FakeVllm], sampler: VllmServerSampler) -> None:
    for number, engine in enumerate(engines_of(sampler)):
        sample(engine, requests(3))
        assert len(fakes[number].answered) == 3
        assert engine.policy_version == 0


def test_killed_in_the_middle_no_request_is_lost_or_answered_twice() -> None:
    """Two real processes, one of them killed with SIGKILL while it works on half of the requests."""
    ports = [free_port(), free_port()]
    command = [sys.executable, "-m", "tests.unit.samplers.fake_vllm"]
    servers = [subprocess.Popen([*command, str(port), "2"]) for port in ports]
    try:
        sampler = sampler_on([f"http://127.0.0.1:{port}" for port in ports], wait_s=20.0)
        sampler.load_weights(weights(1.0).items(), 1)
        wanted = requests(24)

        async def main() -> list[Completion]:
            running = asyncio.gather(*(sampler.sample(request) for request in wanted))
            await asyncio.sleep(0.2)
            servers[0].kill()
            return await running

        completions = asyncio.run(main())
        assert [c.token_ids for c in completions] == expected(wanted)
        assert {c.policy_version for c in completions} == {1}
        assert figures_of(sampler) == {"servers/retries": 12, "servers/recoveries": 1}
        # It comes back with its first weights: it must get the current ones before it serves.
        servers[0].wait()
        servers[0] = subprocess.Popen([*command, str(ports[0]), "0"])
        sampler._router.refresh()
        assert sampler._servers[0].client.weights_name() == sampler._servers[1].client.weights_name()
        sampler.close()
    finally:
        for server in servers:
            server.kill()
            server.wait()


def test_servers_that_stay_away_are_one_line(fakes: list[FakeVllm]) -> None:
    sampler = sampler_on([fakes[0].url], wait_s=0.3)
    fakes[0].fault = "sick"
    with pytest.raises(ServiceError, match=r"does not answer after 0\.3 s of waiting"):
        sampler.load_weights(weights(1.0).items(), 1)
    sampler.close()
    with pytest.raises(ServiceError, match="does not answer"):
        sampler_on([f"http://127.0.0.1:{free_port()}"], wait_s=0.2)


def test_a_server_that_was_started_otherwise_is_refused_with_the_remedy(fakes: list[FakeVllm]) -> None:
    url = fakes[0].url
    for changed in ({"draw": False}, {"logprobs": "processed_logprobs"}):
        before = dict(fakes[0].facts)
        fakes[0].facts.update(changed)
        with pytest.raises(BadInput, match=r"does not draw as this run does.*--logits-processors"):
            sampler_on([url])
        fakes[0].facts = before
    fakes[0].facts["max_model_len"] = 32
    with pytest.raises(BadInput, match="takes 32 tokens, the recipe 64"):
        sampler_on([url])
    fakes[0].post = lambda path, body: (404, {})  # type: ignore[method-assign]
    with pytest.raises(BadInput, match=r"has no /collective_rpc.*VLLM_SERVER_DEV_MODE=1"):
        sampler_on([url])


def test_a_stale_cache_or_a_failed_load_stops_the_run(
    fakes: list[FakeVllm], sampler: VllmServerSampler
) -> None:
    fakes[1].fault = "cache"
    with pytest.raises(ServiceError, match="did not reset its prefix cache"):
        sampler.load_weights(weights(1.0).items(), 1)


def test_an_attempt_has_a_time_limit(fakes: list[FakeVllm]) -> None:
    fakes[0].seconds = 5.0
    client = VllmClient(fakes[0].url, timeout_s=0.2)
    with pytest.raises(ServerFailed, match=r"no answer within 0\.2 s"):
        asyncio.run(client.complete(requests(1)[0], [0], (1.0, 1.0, 0, 0)))
    gone = VllmClient(f"http://127.0.0.1:{free_port()}", timeout_s=1.0)
    with pytest.raises(ServerFailed, match="is gone"):
        asyncio.run(gone.complete(requests(1)[0], [0], (1.0, 1.0, 0, 0)))
    assert not gone.healthy()


def test_time_in_the_servers_queue_is_no_failure(fakes: list[FakeVllm]) -> None:
    """One at a time, eight of them: the last waits for longer than an attempt may take."""
    turn, fakes[0].seconds = threading.Lock(), 0.3
    generate = fakes[0].generate

    def one_at_a_time(body: dict[str, Any]) -> tuple[int, Any]:
        with turn:
            return generate(body)

    fakes[0].generate = one_at_a_time  # type: ignore[method-assign]
    sampler = sampler_on([fakes[0].url], timeout_s=2.0)
    wanted = requests(8)
    assert [c.token_ids for c in sample(sampler, wanted)] == expected(wanted)
    assert figures_of(sampler) == {"servers/retries": 0, "servers/recoveries": 0}
    sampler.close()


def complete(url: str, **options: Any) -> Any:
    client = VllmClient(url, **{"timeout_s": 0.3, **options})
    return asyncio.run(client.complete(requests(1)[0], [0], (1.0, 1.0, 0, 0)))


def test_a_byte_at_a_time_is_no_answer_nor_a_reply_to_a_command() -> None:
    with raw(lambda send, request: drip(send, request, b"HTTP/1.1 200 OK\r\n\r\n")) as url:
        with pytest.raises(ServerFailed, match=r"no answer within 0\.3 s"):
            complete(url)
        with pytest.raises(ServiceError, match="gave no answer within"):
            VllmClient(url, 1.0)._rpc("x", seconds=-9.7)


def test_a_wrong_key_is_one_line_and_no_reason_to_restart(fakes: list[FakeVllm]) -> None:
    fakes[0].generate = lambda body: (401, {"error": "Unauthorized"})  # type: ignore[method-assign]
    with pytest.raises(ServiceError, match=r"answered 401: Unauthorized; is the key .*api_key_env"):
        complete(fakes[0].url)


def test_a_server_at_a_unix_socket(tmp_path: Path) -> None:
    served = tmp_path / "s.sock"

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.headers["authorization"] == "Bearer k" else 401)
            self.end_headers()

        def address_string(self) -> str:
            return "unix"

        def log_message(self, *arguments: Any) -> None: ...

    with socketserver.ThreadingUnixStreamServer(str(served), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        assert VllmClient(f"unix://{served}", 5.0, "k").healthy()
        assert not VllmClient(f"unix://{served}", 5.0).healthy()
        server.shutdown()


def test_servers_of_a_run_are_nobody_elses(tmp_path: Path) -> None:
    for argument in ("--host=0.0.0.0", "--api-key", "--uds=/x"):
        with pytest.raises(ValueError, match="is set by the run"):
            VllmServerConfig(servers=1, server_args=(argument,))
    with pytest.raises(ValueError, match=r"urls: .*try http://gpu:8000"):
        VllmServerConfig(urls=("gpu:8000",))
    with pytest.raises(BadInput, match="TMPDIR"):
        ServerProcess(0, [], {}, tmp_path / ("x" * 100))


_values: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(
        st.sampled_from(["choices", "token_ids", "logprobs", "content", "logprob", "weight_versions", "version",
                         "finish_reason"]), inner, max_size=5),
)  # fmt: skip


@given(_values, st.sampled_from(["whole", "token_ids", "logprobs", "weight_versions", "finish_reason"]))
def test_no_reply_of_a_server_raises_more_than_it_may(value: Any, place: str) -> None:
    choice = {
        "token_ids": [5],
        "logprobs": {"content": [{"logprob": -1.0}]},
        "weight_versions": [{"version": "a"}],
        "finish_reason": "stop",
    }
    whole = value if place == "whole" else {"choices": [{**choice, place: value}]}
    try:
        found, _ = VllmClient("http://h", 1.0)._completion(Reply(200, {}, json.dumps(whole).encode()))
    except ServerFailed as error:
        told = str(error)
        assert "\n" not in told
        return
    assert len(found.token_ids) == len(found.logprobs) and all(math.isfinite(p) for p in found.logprobs)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"urls": ("http://a",), "servers": 1},
        {"servers": 2, "cores": ("0",)},
    ],
)
def test_settings_that_cannot_work_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"urls|entries"):
        VllmServerConfig(**fields)


def test_chunks_keep_order_and_size() -> None:
    named = [(str(n), torch.zeros(size)) for n, size in enumerate([2, 2, 9, 1, 1, 1])]  # 4 bytes each
    assert [[name for name, _ in chunk] for chunk in chunks(iter(named), 16)] == [
        ["0", "1"],
        ["2"],
        ["3", "4", "5"],
    ]
    assert list(chunks([], 16)) == []


def test_gpu_transfer_sends_parts_of_one_update_and_meets_a_restarted_server_again() -> None:
    """The order of vLLM's calls; the bytes themselves need GPUs."""
    pytest.importorskip("vllm")
    from memfactory.core.ranks import ALONE

    events: list[str] = []

    class Client:
        url = "http://a"
        held = "default"

        def start_update(self) -> None:
            events.append("start")

        def finish_update(self) -> None:
            events.append("finish")

        def name_weights(self, name: str) -> None:
            self.held = name

        def weights_name(self) -> str:
            return self.held

    class Engine:
        source: Any = None

        def send_weights(self) -> None:
            meta = [(m.name, m.dtype, m.shape) for m in self.source.metadata()]
            assert meta == [(name, t.dtype, tuple(t.shape)) for name, t in self.source]
            events.append("+".join(name for name, *_ in meta))

    def open_engine(client: Any, source: Any) -> Engine:
        events.append("meet")
        return Engine()

    client: Any = Client()
    transfer = GpuTransfer("nccl", "bfloat16", ALONE, open_engine)
    once = ["start", "embed.weight+head.weight+norm.weight", "finish"]
    transfer.send(weights(1.0).items(), [client], "v1")
    transfer.send(weights(2.0).items(), [client], "v2")
    assert events == ["meet", *once, *once]
    client.held = "default"  # restarted
    transfer.send(weights(3.0).items(), [client], "v3")
    assert events[7:] == ["meet", *once]
    assert client.held == "v3"
    transfer._engines["http://a"][1].send_weights = lambda: 1 / 0  # type: ignore[method-assign]
    with pytest.raises(ServiceError, match="cannot be sent by nccl: division by zero"):
        transfer.send(weights(3.0).items(), [client], "v4")


GUARDED = """
import subprocess, sys
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
{last}
"""


def guard(folder: Path, last: str, parent: str) -> list[str]:
    guard = "memfactory.samplers.server_guard"
    code = GUARDED.format(last=last)
    return [
        sys.executable,
        "-m",
        guard,
        "--parent",
        parent,
        "--cleanup",
        str(folder),
        "--",
        sys.executable,
        "-c",
        code,
    ]


def of_session(leader: int) -> list[psutil.Process]:
    import os

    found = []
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) == leader and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (ProcessLookupError, psutil.NoSuchProcess):
            continue
    return found


def wait_until(condition: Any, seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.02)


def test_nothing_of_a_server_outlives_a_killed_run(tmp_path: Path) -> None:
    """kill -9 of the run: its guard, the server and the server's own children go, and so does the folder."""
    folder = tmp_path / "weights"
    folder.mkdir()
    arguments = guard(folder, "import time; time.sleep(60)", "PARENT")
    run = (
        "import os, subprocess, time\n"
        f"arguments = [a.replace('PARENT', str(os.getpid())) for a in {arguments!r}]\n"
        "print(subprocess.Popen(arguments, start_new_session=True).pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", run], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        leader = int(parent.stdout.readline())
        wait_until(lambda: len(of_session(leader)) == 3)
        parent.kill()
    wait_until(lambda: not of_session(leader) and not folder.exists())


def test_what_a_dead_server_leaves_behind_is_ended(tmp_path: Path) -> None:
    import os

    arguments = guard(tmp_path, "sys.exit(3)", str(os.getpid()))
    with subprocess.Popen(arguments, start_new_session=True) as process:
        assert process.wait(30) == 3
    wait_until(lambda: not of_session(process.pid))
    assert tmp_path.exists()
