"""The terminal viewer, driven by textual's pilot."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from textual.widgets import Input, Static

from memfactory.core.texts import plain
from memfactory.reports.run_data import read_run
from memfactory.reports.terminal import RolloutBrowser
from memfactory.reports.words import difference
from tests.unit.reports.folders import make_run, rollout


def shown(app: RolloutBrowser) -> str:
    """What the right-hand side says, as plain text."""
    console = Console(width=100, color_system=None)
    with console.capture() as capture:
        console.print(app.query_one("#text", Static).content)
    return capture.get()


async def test_keys_move_search_and_switch_the_view(tmp_path: Path) -> None:
    kept = {1: [rollout("t1", i, i % 2) for i in range(2)], 2: [rollout("t2", 0, 1.0)]}
    app = RolloutBrowser(read_run(make_run(tmp_path / "demo", rollouts=kept)))
    async with app.run_test(size=(140, 50)) as pilot:
        assert app.table.row_count == 7  # three of training, four held out
        assert "Where does Ada of t1 live?" in shown(app)
        assert "1 update  12 + 3 tokens  advantage -0.5" in shown(app)
        assert "block one" not in shown(app)
        await pilot.press("p")
        assert "block one" in shown(app)
        await pilot.press("j")
        assert app.current is not None
        assert (app.current.index, app.current.reward) == (1, 1.0)
        await pilot.press("g")
        assert "rollout 0  reward 0" in shown(app)
        assert "rollout 1  reward 1" in shown(app)
        await pilot.press("g", "slash", *"t2", "enter")
        assert app.table.row_count == 1
        assert "Where does Ada of t2 live?" in shown(app)
        await pilot.press("escape")
        assert app.query_one("#search", Input).value == ""
        assert app.table.row_count == 7
        await pilot.press("slash", *"nowhere to be found")
        assert "No rollout holds this text." in shown(app)
        await pilot.press("escape", "q")
    assert app.return_code == 0


async def test_model_texts_are_no_markup_and_steer_no_terminal(tmp_path: Path) -> None:
    bad = "[red]x[/red] [/nothing] \x1b]0;title\x07 \x1b[2J \u202e"
    line = rollout("t", 0, 1.0, question=bad, reply=bad)
    line["calls"][0]["memory"] = bad
    app = RolloutBrowser(read_run(make_run(tmp_path / "demo", rollouts={1: [line]}, evaluate=False)))
    async with app.run_test(size=(140, 50)):
        text = shown(app)
    assert "[red]x[/red] [/nothing]" in text
    assert not {"\x1b", "\x07", "\u202e"} & set(text)


async def test_a_run_without_rollouts_says_so(tmp_path: Path) -> None:
    app = RolloutBrowser(read_run(make_run(tmp_path / "demo", rollouts={}, evaluate=False)))
    async with app.run_test() as pilot:
        await pilot.press("j", "k", "g", "p")
        assert "No rollouts to show." in shown(app)


@given(st.text(alphabet="ab \n.", max_size=40), st.text(alphabet="ab \n.", max_size=40))
def test_a_difference_holds_both_texts(before: str, after: str) -> None:
    segments = difference(before, after)
    assert "".join(text for kind, text in segments if kind != "ins") == before
    assert "".join(text for kind, text in segments if kind != "del") == after
    assert (before == after) == all(kind == "same" for kind, _ in segments)


def test_a_difference_is_by_words() -> None:
    assert difference("Ada lives in Rome", "Ada lives in Oslo") == [
        ("same", "Ada lives in "),
        ("del", "Rome"),
        ("ins", "Oslo"),
    ]
    assert difference("Ada likes red.", "Bo has a cat.") == [
        ("del", "Ada likes red"),
        ("ins", "Bo has a cat"),
        ("same", "."),
    ]


@given(st.text())
def test_cleaned_text_keeps_its_lines(text: str) -> None:
    assert plain(text).count("\n") == text.count("\n")
