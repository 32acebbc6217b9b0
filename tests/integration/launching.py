"""Runs of the command line in processes of their own that start at once, and can be killed at an exact place.

Python's fork server imports torch and transformers once; each run is a fork of it. A `Strike` sends a
signal to the run from within, at a named write, so that no test has to sleep and hope.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, TypeVar

import pytest

T = TypeVar("T")

PRELOAD = (
    "torch",
    "transformers",
    "transformers.models.qwen3.modeling_qwen3",
    "memfactory.commands.train",
    "memfactory.commands.evaluate",
    "memfactory.commands.infer",
    "memfactory.learners.local",
    "memfactory.learners.files",
    "memfactory.samplers.hf",
    "memfactory.models.load",
    "matplotlib.figure",
    "huggingface_hub",
    "plotext",
)


@dataclass(frozen=True)
class Strike:
    """Send `number` to the run at the `nth` event of kind `at` whose name ends in `name` (`*`: whatever is there).

    Kinds: `replace` (a file or folder gets its final name; the name is that path), `fsync` (the name is
    the file's path), `rmtree`, `metrics` (a line is logged; the name is `step-N`), `half-line` (the same,
    after half of the line), `rollout` (one begins; the name is its phase), `update` (of the learner).
    """

    at: str
    name: str = ""
    nth: int = 1
    after: bool = False
    number: int = signal.SIGKILL

    def __str__(self) -> str:
        return f"{'after' if self.after else 'before'}-{self.at}-{self.name or 'any'}-{self.nth}"


@dataclass(frozen=True)
class Ended:
    """How a run ended: its exit code (negative: killed by that signal) and what it printed."""

    code: int | None
    out: str
    err: str

    @property
    def error_lines(self) -> list[str]:
        """Lines on standard error."""
        return [line for line in self.err.splitlines() if line.strip()]


def fork_server() -> multiprocessing.context.ForkServerContext:
    """Makes processes that have loaded what every run imports."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.integration.launching_preload"])
    return context


class Launch:
    """A run that has been started."""

    def __init__(
        self, argv: Sequence[str], folder: Path, strike: Strike | None = None, full_disk: str = ""
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        number = len(list(folder.glob("*.out")))
        self.out, self.err = folder / f"{number}.out", folder / f"{number}.err"
        self.out.touch()
        self.process = fork_server().Process(
            target=_child, args=(list(argv), str(self.out), str(self.err), strike, full_disk)
        )
        self.process.start()

    def end(self, timeout: float = 120) -> Ended:
        """Wait for the end."""
        self.process.join(timeout)
        if self.process.exitcode is None:
            self.process.kill()
            self.process.join()
            raise AssertionError(f"still running after {timeout} s:\n{self.err.read_text()}")
        return Ended(self.process.exitcode, self.out.read_text(), self.err.read_text())


def launch(argv: Sequence[str], folder: Path, strike: Strike | None = None, *, full_disk: str = "") -> Ended:
    """Run `memfactory <argv>` to its end. Writes below a path that matches `*full_disk*` fail with ENOSPC."""
    return Launch(argv, folder, strike, full_disk).end()


def two_at_a_time(
    request: pytest.FixtureRequest, name: str, work: Callable[[Any, Path], T], folders: pytest.TempPathFactory
) -> Iterator[dict[Any, Future[T]]]:
    """What `work(value, folder)` returns or raises, for each value of parameter `name` in the module's chosen tests.

    For a module's fixture. A run uses one core: two at once take half the time.
    """
    chosen = [
        item.callspec.params[name]
        for item in request.session.items
        if isinstance(item, pytest.Function) and item.path == request.path and hasattr(item, "callspec")
        if name in item.callspec.params and request.fixturename in item.fixturenames
    ]
    with ThreadPoolExecutor(2) as pool:
        try:
            yield {value: pool.submit(work, value, folders.mktemp("run")) for value in dict.fromkeys(chosen)}
        finally:
            pool.shutdown(cancel_futures=True)


def _child(argv: list[str], out: str, err: str, strike: Strike | None, full_disk: str) -> None:
    for path, descriptor in ((out, 1), (err, 2)):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(file, descriptor)
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    import torch

    torch.set_num_threads(1)
    if strike is not None:
        _arm(strike)
    if full_disk:
        _fill(full_disk)
    from memfactory.cli.main import run

    try:
        code = run(argv)
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _arm(strike: Strike) -> None:
    from memfactory.learners.local import LocalLearner
    from memfactory.rollouts.collect import Collector
    from memfactory.training.run_folder import RunFolder

    seen = 0

    def event(kind: str, name: str, action: Callable[[], Any]) -> Any:
        nonlocal seen
        if kind != strike.at or not fnmatchcase(name, f"*{strike.name}"):
            return action()
        seen += 1
        if seen != strike.nth:
            return action()
        if strike.after:
            result = action()
            os.kill(os.getpid(), strike.number)
            return result
        os.kill(os.getpid(), strike.number)
        return action()

    replace, fsync, rmtree = os.replace, os.fsync, shutil.rmtree
    os.replace = lambda a, b, **k: event("replace", str(b), lambda: replace(a, b, **k))
    os.fsync = lambda fd: event("fsync", os.readlink(f"/proc/self/fd/{fd}"), lambda: fsync(fd))
    shutil.rmtree = lambda path, *a, **k: event(  # type: ignore[assignment]
        "rmtree", str(path), lambda: rmtree(path, *a, **k)
    )
    log_metrics, rollout, update = RunFolder.log_metrics, Collector.rollout, LocalLearner.update

    def logging(self: Any, record: Any) -> None:
        if strike.at == "half-line" and f"step-{record['step']}" == strike.name:
            line = json.dumps(dict(record)) + "\n"
            self.written.announce(self.metrics_path, line.encode())
            with open(self.metrics_path, "a") as file:
                file.write(line[:40])
            os.kill(os.getpid(), signal.SIGKILL)
        event("metrics", f"step-{record['step']}", lambda: log_metrics(self, record))

    RunFolder.log_metrics = logging  # type: ignore[method-assign]
    Collector.rollout = lambda self, task, index, phase, *a, **k: event(  # type: ignore[method-assign]
        "rollout", phase, lambda: rollout(self, task, index, phase, *a, **k)
    )
    LocalLearner.update = lambda self, *a, **k: event(  # type: ignore[method-assign]
        "update", "", lambda: update(self, *a, **k)
    )


def _fill(where: str) -> None:
    """Files whose path matches `*where*` cannot be made durable: what a full disk looks like."""
    import errno

    fsync = os.fsync

    def full(descriptor: int) -> None:
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        if fnmatchcase(path, f"*{where}*"):
            raise OSError(errno.ENOSPC, "No space left on device", path)
        fsync(descriptor)

    os.fsync = full


def fingerprint(run: Path) -> dict[str, Any]:
    """Everything that two runs with the same recipe must have in common, time apart."""
    return {
        "weights": hashlib.sha256((run / "final" / "model.safetensors").read_bytes()).hexdigest(),
        "metrics": [timeless(json.loads(line)) for line in (run / "metrics.jsonl").read_text().splitlines()],
        "evaluation": {
            path.name: timeless(json.loads(path.read_text()))
            for path in sorted((run / "evaluation").iterdir())
        },
        "rollouts": {path.name: path.read_text() for path in sorted((run / "rollouts").iterdir())},
        "summary": timeless(json.loads((run / "summary.json").read_text())),
        "checkpoints": sorted(path.name for path in (run / "checkpoints").iterdir()),
        "files": sorted(path.name for path in run.iterdir()),
    }


def _of_the_machine(key: str) -> bool:
    """Whether a figure is of time or memory, which no two runs share."""
    return "seconds" in key or "per_second" in key or key.startswith("peak_")


def timeless(value: Any) -> Any:
    """The value without figures that depend on the clock."""
    if isinstance(value, dict):
        return {k: timeless(v) for k, v in value.items() if not _of_the_machine(k)}
    if isinstance(value, list):
        return [timeless(item) for item in value]
    return value
