"""What an evaluation costs: tokens, calls, seconds, and the most memory that was in use."""

from __future__ import annotations

import sys
import threading
from dataclasses import dataclass
from types import TracebackType
from typing import Any

_SECONDS_BETWEEN_LOOKS = 0.2


@dataclass(frozen=True)
class Cost:
    """Sums over the rollouts of a set; `seconds` are wall time, all starts of the program together.

    `peak_memory_bytes` is the resident memory of this process and its children, looked at five times a second;
    `peak_gpu_memory_bytes` is what torch allocated on the GPU, None without one. Tokens are None where a server does
    not tell them. Judges are apart; answers that they had given before cost nothing.
    """

    calls: int
    prompt_tokens: int | None
    completion_tokens: int | None
    seconds: float
    peak_memory_bytes: int
    peak_gpu_memory_bytes: int | None
    judge_calls: int = 0
    judge_prompt_tokens: int | None = 0
    judge_completion_tokens: int | None = 0


class PeakMemory:
    """Context manager that watches how much memory is in use."""

    def __init__(self) -> None:
        self._most = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="peak-memory", daemon=True)

    def __enter__(self) -> PeakMemory:
        if (cuda := _cuda()) is not None:
            cuda.reset_peak_memory_stats()
        self._look()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def bytes(self) -> int:
        """The most seen so far."""
        return self._most

    @property
    def gpu_bytes(self) -> int | None:
        """The most that torch allocated on the GPU (not run on a GPU); None without one."""
        cuda = _cuda()
        return None if cuda is None else int(cuda.max_memory_allocated())

    def _watch(self) -> None:
        while not self._stop.wait(_SECONDS_BETWEEN_LOOKS):
            self._look()

    def _look(self) -> None:
        import psutil

        total, own = 0, psutil.Process()
        for process in (own, *own.children(recursive=True)):
            try:
                total += process.memory_info().rss
            except psutil.Error:
                continue  # it ended while we looked
        self._most = max(self._most, total)


def _cuda() -> Any:
    """torch's view of the GPU, if torch is loaded and has used one."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available() or not torch.cuda.is_initialized():
        return None
    return torch.cuda
