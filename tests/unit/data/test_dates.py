"""Dates in whatever form, put in order; what can be two days, or none, is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memfactory.core.errors import BadInput
from memfactory.data.check import check_file
from memfactory.data.dates import date_text, in_order, parse_date
from memfactory.data.readers.longmemeval import longmemeval
from tests.unit.data.test_longmemeval import record

Write = Callable[..., str]
MAY_8 = datetime(2023, 5, 8)


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("2023/05/08 (Mon) 13:56", MAY_8.replace(hour=13, minute=56)),
        ("1:56 pm on 8 May, 2023", MAY_8.replace(hour=13, minute=56)),
        ("8 May, 2023", MAY_8),
        ("May 8th, 2023", MAY_8),
        ("Monday, 8 May 2023 at 13:56", MAY_8.replace(hour=13, minute=56)),
        ("08.05.2023", MAY_8),
        ("5/20/2023", datetime(2023, 5, 20)),
        ("20/5/2023", datetime(2023, 5, 20)),
        ("2023/5/8", MAY_8),
        ("20230508", MAY_8),
        ("2023-05-08T13:56:00Z", datetime(2023, 5, 8, 13, 56, tzinfo=UTC)),
        ("2023-05-08 13:56+02:00", datetime(2023, 5, 8, 13, 56, tzinfo=timezone(timedelta(hours=2)))),
        ("1683554160", MAY_8.replace(hour=13, minute=56)),
        ("1683554160000", MAY_8.replace(hour=13, minute=56)),
    ],
)
def test_forms_of_a_date(text: str, time: datetime) -> None:
    assert parse_date(text) == time


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("05/06/2023", r"can be two days \(2023-05-06 or 2023-06-05\); write the year first"),
        ("May 2023", "does not name year, month and day"),
        ("14:30", "does not name year, month and day"),
        ("last week", "is no date; write it like"),
        ("", "is no date"),
        ("2023/02/30 (Sat) 02:21", "is a day that does not exist"),
        ("2023-05-20 02:21 CST", "the time zone 'CST' has no one meaning"),
        ("9" * 5000, "a text of 5000 characters is no date"),
    ],
)
def test_what_is_no_one_day_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_date(text)


@given(st.text(max_size=20) | st.text("0123456789/.-: apmMy,TZ+", max_size=20))
def test_any_text_is_a_date_or_none(text: str) -> None:
    try:
        parse_date(text)
    except ValueError as error:
        assert "\n" not in str(error)  # noqa: PT017


@given(st.lists(st.datetimes(datetime(1971, 1, 1), datetime(2200, 1, 1)), min_size=2, max_size=6))
def test_every_form_gives_the_order_of_time(times: list[datetime]) -> None:
    times = [time.replace(second=0, microsecond=0) for time in times]
    wanted = sorted(range(len(times)), key=times.__getitem__)
    for form in ("%Y/%m/%d (%a) %H:%M", "%I:%M %p on %d %B, %Y", "%d.%m.%Y %H:%M", "%b %d, %Y %H:%M", "%c"):
        assert in_order([time.strftime(form) for time in times], "f") == wanted


def test_sessions_stand_in_the_order_of_time_whatever_form_their_dates_have(write: Write) -> None:
    def order(*dates: Any) -> list[str]:
        [task] = longmemeval(write([record(haystack_dates=list(dates))]))
        return [session.id for session in task.evidence.sessions]

    by_time = [
        "answer_a",
        "ultra_1",
        "answer_b",
    ]  # as text, 9 June stands before 10 May, and April before March
    assert order("9 June, 2023", "10 May, 2023", "11 May, 2023") == by_time
    assert order("1 April 2023", "1 March 2023", "2 March 2023") == by_time
    assert (
        order("2023-05-20T01:00:00+00:00", "2023-05-20T02:00:00+02:00", "2023-05-20T02:30:00+02:00")
        == by_time
    )
    assert order(1684549260, 999999999, 1684549200) == by_time
    [task] = longmemeval(write([record(question_date=1684549260)]))
    assert task.question.endswith("(asked on 2023/05/20 (Sat) 02:21)")
    assert date_text("20 May") == "20 May"


@pytest.mark.parametrize(
    ("dates", "message"),
    [
        (["9 June, 2023", "soon", "1 May, 2023"], r"haystack_dates\[1\]: 'soon' is no date"),
        (["01/02/2023", "03/02/2023", "01/02/2023"], r"haystack_dates\[0\]: '01/02/2023' can be two days"),
        (
            ["2023-05-20T01:00Z", "2023-05-20", "2023-05-21"],
            r"haystack_dates\[1\]: '2023-05-20' names no time zone",
        ),
        ([None, "2023-05-20", "2023-05-21"], r"haystack_dates\[0\]: must be a date, not null"),
        ([float("nan"), "2023-05-20", "2023-05-21"], r"haystack_dates\[0\]: 'nan' is no date"),
    ],
)
def test_dates_that_cannot_be_put_in_order_name_the_record(
    write: Write, dates: list[Any], message: str
) -> None:
    path = write(json.dumps([record(), record("q2", haystack_dates=dates)]), "f.json")
    with pytest.raises(BadInput, match=r"f\.json\[1\]\." + message):
        longmemeval(path)
    assert check_file("longmemeval", path).bad == 1
