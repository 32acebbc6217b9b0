"""The rollout viewer in a terminal: a list of rollouts, and beside it each call with what it did to the memory.

Texts of models are shown as text: their brackets are no markup, their control characters reach no terminal.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import BindingType
from textual.containers import Horizontal, VerticalScroll
from textual.widgets import DataTable, Footer, Header, Input, Static

from memfactory.core.texts import plain
from memfactory.reports.rollouts import (
    ViewedCall,
    ViewedRollout,
    count_training_rollouts,
    held_out_rollouts,
    training_rollouts,
)
from memfactory.reports.run_data import RunData
from memfactory.reports.words import difference

_STYLES = {"same": "", "del": "red strike", "ins": "green bold"}
_QUESTION = 60
#: Rollouts of training that are read; a long run has more than one looks through, and than fits memory.
MOST_ROLLOUTS = 5000


class RolloutBrowser(App[None]):
    """Keys: arrows or j and k move, / searches, p shows prompts, g the whole group, q quits."""

    TITLE = "MemFactory"
    CSS = """
    #list { width: 42%; border-right: solid $panel; }
    #detail { width: 1fr; padding: 0 1; }
    #search { display: none; }
    #search.open { display: block; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        ("j", "move(1)", "next"),
        ("k", "move(-1)", "previous"),
        ("slash", "search", "search"),
        ("p", "prompts", "prompts"),
        ("g", "group", "group"),
        ("escape", "leave_search", "show all"),
        ("q", "quit", "quit"),
    ]

    def __init__(self, run: RunData) -> None:
        super().__init__()
        self.rollouts = list(training_rollouts(run, MOST_ROLLOUTS))
        found = count_training_rollouts(run)
        left_out = found > len(self.rollouts)
        self.sub_title = (
            f"{run.name}, {len(self.rollouts):,} of {found:,} of training" if left_out else run.name
        )
        for held_out in [*run.evaluations, *run.results]:
            self.rollouts += held_out_rollouts(run, held_out)
        self.shown = list(range(len(self.rollouts)))
        self.with_prompts = False
        self.as_group = False

    def compose(self) -> ComposeResult:
        """List and detail beside each other; a search line appears above them."""
        yield Header()
        yield Input(placeholder="text, task or module; Enter closes", id="search")
        with Horizontal():
            yield DataTable(id="list", cursor_type="row", zebra_stripes=True)
            with VerticalScroll(id="detail"):
                yield Static(id="text")
        yield Footer()

    def on_mount(self) -> None:
        """Fill the list and show its first rollout."""
        self.table.add_columns("where", "#", "reward", "question")
        self._fill()
        self.table.focus()

    @property
    def table(self) -> DataTable[Text]:
        """The list of rollouts."""
        return self.query_one("#list", DataTable)

    @property
    def current(self) -> ViewedRollout | None:
        """The rollout under the cursor."""
        row = self.table.cursor_row
        return self.rollouts[self.shown[row]] if 0 <= row < len(self.shown) else None

    def on_data_table_row_highlighted(self) -> None:
        """Show what the cursor is on."""
        self._show()

    def on_input_changed(self, event: Input.Changed) -> None:
        """Keep the rollouts that hold the text."""
        wanted = event.value.lower()
        self.shown = [i for i, rollout in enumerate(self.rollouts) if wanted in _words_of(rollout)]
        self._fill()

    def on_input_submitted(self) -> None:
        """Back to the list, which stays searched."""
        self.query_one("#search").remove_class("open")
        self.table.focus()

    def action_move(self, by: int) -> None:
        """Move the cursor."""
        self.table.move_cursor(row=self.table.cursor_row + by)

    def action_search(self) -> None:
        """Open the search line."""
        search = self.query_one("#search", Input)
        search.add_class("open")
        search.focus()

    def action_leave_search(self) -> None:
        """Close the search line and show everything."""
        search = self.query_one("#search", Input)
        search.value = ""
        search.remove_class("open")
        self.table.focus()

    def action_prompts(self) -> None:
        """Show or hide the calls' prompts."""
        self.with_prompts = not self.with_prompts
        self._show()

    def action_group(self) -> None:
        """Show the answers and memories of the whole group, or one rollout call by call."""
        self.as_group = not self.as_group
        self._show()

    def _fill(self) -> None:
        self.table.clear()
        for i in self.shown:
            rollout = self.rollouts[i]
            reward = "failed" if rollout.error else "" if rollout.reward is None else f"{rollout.reward:.3g}"
            cells = (where(rollout), str(rollout.index), reward, rollout.question[:_QUESTION])
            self.table.add_row(*(Text(plain(cell).replace("\n", " ")) for cell in cells))
        self._show()

    def _show(self) -> None:
        rollout = self.current
        self.query_one("#detail", VerticalScroll).scroll_home(animate=False)
        text = self.query_one("#text", Static)
        if rollout is None:
            text.update(Text("No rollouts to show." if not self.rollouts else "No rollout holds this text."))
        elif self.as_group:
            members = [other for other in self.rollouts if other.group == rollout.group]
            text.update(Group(*group_parts(members)))
        else:
            text.update(Group(*rollout_parts(rollout, self.with_prompts)))


def rollout_parts(rollout: ViewedRollout, with_prompts: bool) -> Iterator[RenderableType]:
    """Head and calls of a rollout, as rich renderables."""
    yield Text(plain(rollout.question), style="bold")
    facts = [("task", rollout.task), ("where", f"{where(rollout)}, rollout {rollout.index}")]
    facts += [("gold", " or ".join(rollout.golds)), ("answer", rollout.reply or "")]
    facts += [
        ("failed", rollout.error or ""),
        ("reward", "" if rollout.reward is None else f"{rollout.reward:.4g}"),
    ]
    facts += [("components", _list(rollout.rewards)), ("scores", _list(rollout.scores))]
    facts += [("operations", _list(rollout.operations)), ("problems", "; ".join(rollout.problems))]
    yield Text("\n").join(
        Text.assemble((f"{name:10} ", "dim"), plain(value)) for name, value in facts if value
    )
    memory = rollout.memory or ""
    for number, call in enumerate(rollout.calls, start=1):
        parts: list[RenderableType] = []
        if with_prompts and call.prompt is not None:
            parts += [Text("prompt", style="dim"), Text(plain(call.prompt))]
        if call.memory is not None:
            parts += [Text("memory", style="dim"), changed(memory, call.memory)]
            memory = call.memory
        if call.reply is not None and call.reply != call.memory:
            parts += [Text("reply", style="dim"), Text(plain(call.reply))]
        yield Panel(Group(*parts), title=Text(_title(number, call)), title_align="left", border_style="dim")


def group_parts(members: list[ViewedRollout]) -> Iterator[RenderableType]:
    """The rollouts of one task under each other: reward, answer, and the memory at the end."""
    yield Text(plain(members[0].question), style="bold")
    for member in members:
        memory = next((call.memory for call in reversed(member.calls) if call.memory is not None), "")
        reward = "failed" if member.error else "" if member.reward is None else f"reward {member.reward:.4g}"
        body = Text.assemble(
            ("answer  ", "dim"), plain(member.reply or ""), ("\nmemory  ", "dim"), plain(memory)
        )
        yield Panel(
            body, title=Text(f"rollout {member.index}  {reward}"), title_align="left", border_style="dim"
        )


def where(rollout: ViewedRollout) -> str:
    """Source, step and set in few words."""
    parts = [f"step {rollout.step}" if rollout.source == "training" else rollout.source, rollout.set]
    return " ".join(part for part in parts if part)


def changed(before: str, after: str) -> Text:
    """The new memory, with what was taken out struck through and what was put in bold."""
    parts = [(plain(text), _STYLES[kind]) for kind, text in difference(before, after)]
    return Text.assemble(*parts) if parts else Text("(empty)", style="dim")


def _title(number: int, call: ViewedCall) -> str:
    parts = [f"{number} {plain(call.module)}"]
    counts = (call.prompt_tokens, call.completion_tokens)
    if counts != (None, None):
        parts.append(" + ".join("–" if count is None else str(count) for count in counts) + " tokens")
    if call.finish == "length":
        parts.append("cut at its limit")
    if call.advantage is not None:
        parts.append(f"advantage {call.advantage:+.3g}")
    return "  ".join(parts)


def _list(values: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in values.items())


def _words_of(rollout: ViewedRollout) -> str:
    calls = [part for call in rollout.calls for part in (call.module, call.prompt, call.reply, call.memory)]
    parts = [
        rollout.task,
        rollout.source,
        rollout.question,
        rollout.reply,
        rollout.error,
        *rollout.golds,
        *calls,
    ]
    return "\n".join(part for part in parts if part).lower()
