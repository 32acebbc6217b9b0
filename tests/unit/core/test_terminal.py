"""Texts of others are shown on a terminal, and do nothing to it; JSON says exactly what they were."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.table import Table
from rich.text import Text

from memfactory.cli.main import run
from memfactory.cli.printing import echo
from memfactory.commands.memories import say
from memfactory.commands.results import json_for
from memfactory.core.terminal import Terminal
from memfactory.core.texts import acts_on_a_terminal, plain

NASTY = "\x1b[31mred\x1b[0m \x1b]0;title\x07\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\ "
NASTY += "\x9b2J \u202egnp.exe\u202c [bold]x[/] :smile: \x00\r"
#: Worked out by hand: whole commands are gone, single characters that act are U+FFFD.
SHOWN = "red link  \ufffdgnp.exe\ufffd [bold]x[/] :smile: \ufffd\ufffd"


def terminal(**options: object) -> tuple[Terminal, io.StringIO]:
    file = io.StringIO()
    return Terminal(file=file, width=200, **options), file


def test_a_text_is_shown_as_it_is_but_for_commands() -> None:
    assert plain(NASTY) == SHOWN
    assert plain("a\r\nb\tc é 한 👩‍💻") == "a\nb\tc é 한 👩‍💻"
    for print_it in (
        lambda console: console.print(NASTY),
        lambda console: console.print(NASTY, highlight=False, soft_wrap=True),
        lambda console: say(console, NASTY),
    ):
        console, file = terminal()
        print_it(console)
        assert file.getvalue() == SHOWN + "\n"
    console, file = terminal()
    console.print(Text(NASTY))  # rich itself takes the ends of some commands away
    assert file.getvalue().startswith("red") and not any(map(acts_on_a_terminal, file.getvalue()))
    console, file = terminal()
    table = Table("memory", title=NASTY)
    table.add_row(NASTY)
    console.print(table)
    assert file.getvalue().count(SHOWN) == 2 and "\x1b" not in file.getvalue()


def test_the_program_keeps_its_own_colours_and_nobody_else_has_any() -> None:
    console, file = terminal(force_terminal=True, color_system="standard", no_color=False)
    console.print(Text("\x1b[2Jbad", style="bold"))
    assert file.getvalue() == "\x1b[1mbad\x1b[0m\n"


@given(st.text(st.characters() | st.sampled_from("\x1b[]\x07\x9b\x9c\x90;m\r\n\u202e\u2066")))
def test_no_text_reaches_a_terminal_with_a_command(text: str) -> None:
    console, file = terminal()
    console.print(text)
    assert not any(map(acts_on_a_terminal, file.getvalue()))
    assert json.loads(json_for(text, "utf-8")) == text
    assert not any(map(acts_on_a_terminal, json_for(text, "utf-8")))


def test_errors_and_single_lines(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    echo(NASTY)
    assert capsys.readouterr().out == SHOWN + "\n"
    path = tmp_path / "a\x1b[2Jb.jsonl"
    path.write_text('{"question": "q", "text": "x", "answers": "a", "id": "\\u001b[31m"}\n' * 2)
    assert run(["data", "check", "jsonl", str(path)]) == 2
    assert run(["data", "check", "jsonl", str(path) + "\x1b]0;x\x07"]) == 2
    assert "\x1b" not in "".join(capsys.readouterr())
