"""The errors a user can cause, so that the command line can tell them from bugs.

A `UserError` is printed as one line and ends the program with its exit code; anything else is a bug
and keeps its traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Something outside the program is wrong; the message names it and the remedy, in one line."""

    exit_code = 1


class BadInput(UserError):
    """A recipe, data file, model folder or option is wrong; nothing was started (exit code 2)."""

    exit_code = 2


class TaskError(BadInput):
    """This task cannot be done by this agent (a question longer than a block, a prompt too long)."""


class ServiceError(UserError):
    """A server or engine we depend on failed or cannot be reached, after retries."""


class ParityError(UserError):
    """Sampler and learner disagree about log-probabilities: training on would be wrong."""


class DiskError(UserError):
    """Writing failed (disk full, no permission); what was written before is intact."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return `"; did you mean 'x'?"` for the known word nearest to `word`, else an empty string."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"; did you mean '{close[0]}'?" if close else ""
