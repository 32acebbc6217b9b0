"""The prompt of the chat in a real terminal: no Ctrl-C is lost, whatever readline is doing when it comes."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.integration.terminal import CTRL_C, CTRL_D, Terminal

PROGRAM = """
import readline
import time
from memfactory.commands.line_editor import line_editor
{setting}
read = line_editor()
while True:
    try:
        line = read("you> ")
    except KeyboardInterrupt:
        print("given up")
        continue
    except EOFError:
        break
    try:
        print("read", repr(line), flush=True)
        while line == "work":
            time.sleep(0.01)  # one long sleep would miss a signal that comes in the moment before it begins
    except KeyboardInterrupt:
        print("stopped")
print([readline.get_history_item(n + 1) for n in range(readline.get_current_history_length())])
"""
ESCAPE, TO_THE_START, SEARCH = "\x1b", "\x01", "\x12"


@pytest.mark.parametrize(
    "setting", ["", 'readline.parse_and_bind("set editing-mode vi")'], ids=["emacs", "vi"]
)
def test_every_ctrl_c_is_heard(tmp_path: Path, setting: str) -> None:
    terminal = Terminal([sys.executable, "-c", PROGRAM.format(setting=setting)], tmp_path)
    terminal.wait_for("you> ")
    for _ in range(10):
        for keys in ("half a line", "", ESCAPE, f"x{TO_THE_START}", f"ab{SEARCH}a", ESCAPE * 2, "é"):
            terminal.type(keys + CTRL_C)
            assert "read" not in terminal.wait_for("given up\r\nyou> "), keys
    terminal.type("work\n")
    terminal.wait_for("read 'work'")
    terminal.type(CTRL_C)
    terminal.wait_for("stopped\r\nyou> ")
    terminal.type(CTRL_D)
    assert terminal.end() == 0
    assert "['work']" in terminal.shown, "what was given up is not in the history"
