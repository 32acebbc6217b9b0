"""Single lines for standard output and standard error, without what a large library would do for them."""

from __future__ import annotations

import sys

from memfactory.core.texts import plain


def echo(line: object, *, err: bool = False) -> None:
    """Print a line as it is, but for what would act on the terminal; `err` prints to standard error."""
    print(plain(str(line)), file=sys.stderr if err else sys.stdout)
