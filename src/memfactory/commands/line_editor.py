"""A line from whoever sits at a terminal, with editing, a history, and a Ctrl-C that is always heard.

Python's readline hears a signal only while it waits for a key. One that comes while a key is being handled is heard
with the next line, or never. So at the prompt Ctrl-C is a key like any other, and the terminal sends no signal for it:
the key writes itself into the line and ends it, and a line that holds it was given up.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

_CTRL_C = "\x03"
# In each of readline's modes: insert the next key as it is, Ctrl-C, Enter. Also after Escape, which begins longer keys.
_KEYS = (
    ("vi-command", r'"\C-c": "i\C-v\C-c\C-m"'),
    ("vi-insert", r'"\C-c": "\C-v\C-c\C-m"'),
    ("emacs", r'"\C-c": "\C-v\C-c\C-m"'),  # last: the mode that stays, where it is not vi's
    ("emacs", r'"\e\C-c": "\C-v\C-c\C-m"'),
)


def line_editor() -> Callable[[str], str]:
    """What reads a line at this terminal; it raises KeyboardInterrupt at Ctrl-C and EOFError at Ctrl-D."""
    try:
        import readline
    except ImportError:  # Python may be built without it: the terminal's own line then, which loses no signal
        return input
    if "libedit" in (readline.__doc__ or "") or not sys.stdout.isatty():
        return input  # keys are bound in another language there; input() does without readline here
    for mode, binding in _KEYS:
        readline.parse_and_bind(f"set keymap {mode}")
        readline.parse_and_bind(binding)

    def read(prompt: str) -> str:
        line = _without_signal(prompt)
        if _CTRL_C not in line:
            return line
        last = readline.get_current_history_length()
        if last and readline.get_history_item(last) == line:
            readline.remove_history_item(last - 1)
        raise KeyboardInterrupt

    return read


def _without_signal(prompt: str) -> str:
    """`input`, while Ctrl-C is a key of the terminal and no signal; Ctrl-Z and Ctrl-\\ stay what they are."""
    import termios

    terminal = sys.stdin.fileno()
    before = termios.tcgetattr(terminal)
    controls = list(before[6])
    controls[termios.VINTR] = bytes([os.fpathconf(terminal, "PC_VDISABLE")])
    try:
        termios.tcsetattr(terminal, termios.TCSANOW, [*before[:6], controls])
        return input(prompt)
    finally:
        termios.tcsetattr(terminal, termios.TCSANOW, before)
