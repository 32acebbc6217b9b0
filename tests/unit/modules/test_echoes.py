"""Tags of a prompt that come back in a reply."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memfactory.modules.echoes import tags_of, without_echo

PROMPT = "Q: {q}\n<memory>\n{memory}\n</memory>\n<br>\n[Notes]\n{x}\n[/Notes]"
TAGS = tags_of(PROMPT)


def test_tags_are_those_that_the_prompt_opens_and_closes() -> None:
    assert {"memory", "notes"} == TAGS
    assert tags_of("no tags", "<a x='1'>{b}</a>") == {"a"}


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("<memory>\nAnn lives in Oslo.\n</memory>", "Ann lives in Oslo."),
        ("<memory><memory>\nAnn.\n\nBob.\n</memory>\n</memory>\n", "Ann.\n\nBob."),
        ("<memory>\nAnn.", "Ann."),
        ("Ann.\n</memory>", "Ann."),
        ("Here it is:\n<MEMORY>\nAnn.\n</memory>\nDone.", "Here it is:\nAnn.\nDone."),
        ("[Notes]Ann.[/Notes]", "Ann."),
        ("Updated memory:\n<memory>Ann.</memory>", "Updated memory:\nAnn."),
        ("```\n<memory>Ann.</memory>\n```", "```\nAnn.\n```"),
        ("<memory>Ann.</memory>\n<memory>Bob.</memory>", "Ann.\nBob."),
        ("<memory>Ann.</memory><memory>Bob.</memory>", "Ann.\nBob."),
        ("<memory></memory>", ""),
        ("The <memory> tag is new.", "The <memory> tag is new."),
        ("<section>\nAnn.\n</section> ", "<section>\nAnn.\n</section> "),
        (" Ann. ", " Ann. "),
    ],
)
def test_what_is_kept(text: str, kept: str) -> None:
    assert without_echo(text, TAGS) == kept


@given(st.lists(st.sampled_from(["<memory>", "</memory>", "[notes]", "\n", " ", "Ann", "<"])).map("".join))
def test_copies_do_not_pile_up(text: str) -> None:
    once = without_echo(text, TAGS)
    assert without_echo(f"<memory>\n{once}\n</memory>", TAGS) == without_echo(once, TAGS).strip()
