"""kill -9 at every moment of taking in messages and reading sessions: nothing is lost, nothing is there twice."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from memfactory.memory.lance import LanceBank

ROOT = Path(__file__).resolve().parents[2]
#: Kills itself at step `argv[2]`; a step is a call of the model, and each side of every commit.
PROGRAM = """
import asyncio, os, signal, sys
from tests.unit.fakes import models_of
from tests.unit.inference.test_keeper import Parrot, dialogue
from memfactory.inference.ingest import parts_left
from memfactory.inference.keeper import Keeper
from memfactory.memory.lance import LanceBank
from memfactory.samplers.scripted import ScriptedSampler

left = int(sys.argv[2])

def step(*arguments):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return "x"

class Bank(LanceBank):
    def _commit(self):
        step()
        super()._commit()
        step()

bank = Bank(sys.argv[1], embedder="none", dim=1)
keeper = Keeper(Parrot(), bank, models_of(ScriptedSampler(step)), lambda: "")
asyncio.run(keeper.take_in())
for number in range(len([i for i in bank.items() if i.text.startswith("Ana")]) + 1, 4):
    keeper.say(f"message {number}", "Ana")
    step()
    asyncio.run(keeper.take_in())
for part in parts_left(dialogue("one", "two", "three"), bank):
    asyncio.run(keeper.read(part))
"""


def start(bank: Path, kill_at: int) -> int:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(bank), str(kill_at)], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode in (0, -9), done.stderr
    return done.returncode


def memories(bank: Path) -> list[tuple[str, str]]:
    with LanceBank(bank, mode="read") as held:
        return [(item.id, item.text) for item in held.items()]


WANTED = [f"Ana: {text}" for text in ("message 1", "message 2", "message 3", "one", "two", "three")]


def test_a_kill_after_ever_fewer_steps_changes_nothing(tmp_path: Path) -> None:
    """One bank, killed again and again: with each start it comes a little further."""
    bank, starts = tmp_path / "bank", 0
    for kill_at in (1, 2, 3, 4, 5, 4, 3, 5, 4, 0):
        starts += 1
        if start(bank, kill_at) == 0:
            break
    assert starts > 4, "it was killed a few times"
    assert memories(bank) == [(f"m{n}", text) for n, text in enumerate(WANTED, start=1)]
    assert not (bank / "pending.jsonl").exists()
