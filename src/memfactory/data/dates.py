"""Dates as data sets write them, as points in time: for putting sessions in order.

Read are ISO 8601, LongMemEval's `2023/05/20 (Sat) 02:21`, LoCoMo's `1:56 pm on 8 May, 2023`, English month names in any
order, digits with day and month, and seconds or milliseconds since 1970. With points between them the day comes
first (`20.05.2023`), as everywhere where dates are written so; with strokes `05/06/2023` can be two days, and is
refused instead of guessed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from functools import lru_cache

from memfactory.core.errors import BadInput

_LONGMEMEVAL = re.compile(r"(\d{4})/(\d\d)/(\d\d) \([A-Z][a-z]{2}\) (\d\d):(\d\d)", re.ASCII)
_EPOCH = re.compile(r"\d{9,10}(?:\.\d+)?|\d{12,13}", re.ASCII)
_WEEKDAY = re.compile(r"\((?:mon|tue|wed|thu|fri|sat|sun)[a-z]*\)", re.IGNORECASE)
_YEAR_FIRST = re.compile(r"\s*\d{4}(?!\d)", re.ASCII)
_POINTS = re.compile(r"(?<!\d)\d{1,2}\.\d{1,2}\.\d{2,4}(?!\d)", re.ASCII)
#: Two days that share no part: a date that comes out differently lacks what is taken from them.
_DEFAULTS = (datetime(2001, 1, 1), datetime(2004, 2, 2))
_LONGEST = 80
_LIKE = "2023-05-20 14:30"


def date_text(value: str | int | float) -> str:
    """A date as agents read it: text as it stands, seconds since 1970 as the day and hour (UTC) that they mean.

    Raises `ValueError` for a number that is no such time.
    """
    text = value if isinstance(value, str) else f"{value:.0f}"
    if isinstance(value, str) and not _EPOCH.fullmatch(text.strip()):
        return text
    return parse_date(text).strftime("%Y/%m/%d (%a) %H:%M")


@lru_cache(maxsize=1 << 16)
def parse_date(text: str) -> datetime:
    """The point in time; it has a zone if the text names one. Raises `ValueError` that says what is wrong."""
    if own := _LONGMEMEVAL.fullmatch(text):
        try:
            return datetime(*map(int, own.groups()))  # type: ignore[arg-type]
        except ValueError:
            raise ValueError(f"{text!r} is a day that does not exist") from None
    stripped = text.strip()
    if len(stripped) > _LONGEST:
        raise ValueError(f"a text of {len(stripped)} characters is no date")
    if _EPOCH.fullmatch(stripped):
        seconds = float(stripped)
        return datetime(1970, 1, 1) + timedelta(seconds=seconds / 1000 if seconds >= 1e11 else seconds)
    try:
        return datetime.fromisoformat(stripped)
    except ValueError:
        return _read(text, _WEEKDAY.sub(" ", stripped))


def in_order(texts: Sequence[str], where: str) -> list[int]:
    """The places of dates from the earliest to the latest; equal ones stay as they are.

    Raises `BadInput` for one that is none, naming `where[place]`, and when only some name a time zone.
    """
    times = []
    for place, text in enumerate(texts):
        try:
            times.append(parse_date(text))
        except ValueError as error:
            raise BadInput(f"{where}[{place}]: {error}") from None
    zoned = [time.tzinfo is not None for time in times]
    if any(zoned) and not all(zoned):
        with_zone, without = zoned.index(True), zoned.index(False)
        raise BadInput(
            f"{where}[{without}]: {texts[without]!r} names no time zone, but {texts[with_zone]!r} does: they cannot be "
            "put in order"
        )
    # UTC by hand: at both ends of the calendar there is no such time.
    keys = [time.replace(tzinfo=None) - datetime.min - (time.utcoffset() or timedelta()) for time in times]
    return sorted(range(len(keys)), key=keys.__getitem__)


def _read(shown: str, text: str) -> datetime:
    """By dateutil, in every way in which it may be meant: all must agree."""
    year_first = _YEAR_FIRST.match(text) is not None
    day_first = (False,) if year_first else (True,) if _POINTS.search(text) else (False, True)
    meant: dict[datetime, str] = {}
    for first in day_first:
        read, other = (_by_dateutil(shown, text, default, first, year_first) for default in _DEFAULTS)
        if read.date() != other.date():
            raise ValueError(f"{shown!r} does not name year, month and day; write it like {_LIKE}")
        meant[read] = f"{read:%Y-%m-%d}"
    if len(meant) > 1:
        raise ValueError(
            f"{shown!r} can be two days ({' or '.join(meant.values())}); write the year first, like {_LIKE}"
        )
    return next(iter(meant))


def _by_dateutil(shown: str, text: str, default: datetime, day_first: bool, year_first: bool) -> datetime:
    from dateutil import parser

    try:
        return parser.parse(text, default=default, dayfirst=day_first, yearfirst=year_first, tzinfos=_zone)
    except _NoZone as error:
        raise ValueError(f"{shown!r}: {error}") from None
    except (ValueError, OverflowError, TypeError, ArithmeticError, RecursionError):
        raise ValueError(f"{shown!r} is no date; write it like {_LIKE}") from None


class _NoZone(Exception):
    """A name that is no time zone, or several."""


def _zone(name: str | None, offset: int | None) -> tzinfo | None:
    if offset is not None:
        return timezone(timedelta(seconds=offset))
    if name in ("UTC", "GMT", "Z"):
        return UTC
    if name is None:
        return None
    raise _NoZone(f"the time zone '{name}' has no one meaning; write an offset, like +02:00")
