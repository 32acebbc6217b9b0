"""Draw score against context length, before and after training, and write the figures into a page.

It reads what this evaluation leaves:

    memfactory eval memagent --models tiny,runs/memagent/final --benchmarks facts --output-dir runs/lengths \\
      --agents memagent,no_memory,full_context,rag_bm25,oracle
    python scripts/length_figure.py runs/lengths --before tiny --after runs/memagent/final
"""

from __future__ import annotations

import argparse
from pathlib import Path

from memfactory.core.errors import BadInput
from memfactory.reports.length_figure import Line, lines_of, picture, table
from memfactory.reports.run_data import read_run
from publish_results import ROOT, replace_marked


def main() -> None:
    """Write the picture, and the table between the marks `lengths` of the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="the output folder of the evaluation")
    parser.add_argument(
        "--before", required=True, help="name of the policy before training, as `eval` had it"
    )
    parser.add_argument("--after", required=True, help="name of the trained policy")
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "evaluation.md")
    parser.add_argument("--image", type=Path, default=ROOT / "docs" / "images" / "score_by_length.png")
    arguments = parser.parse_args()
    try:
        lines = lines_of(read_run(arguments.run).results)
        write(lines, {arguments.before: "before", arguments.after: "after"}, arguments.page, arguments.image)
    except BadInput as error:
        raise SystemExit(f"error: {error}") from None


def write(lines: list[Line], when: dict[str, str], page: Path, image: Path) -> None:
    """Table of all lines; picture of the memory agents before and after, and of the baselines with the trained policy.

    `when` says of each policy whether it is the one before or after training. Raises `BadInput` for another one.
    """
    for line in lines:
        if line.policy not in when:
            raise BadInput(f"the result has a policy '{line.policy}', which is neither --before nor --after")
    shown = [line for line in lines if not line.baseline or when[line.policy] == "after"]
    shown.sort(key=lambda line: (line.baseline, when[line.policy]))
    image.parent.mkdir(parents=True, exist_ok=True)
    image.write_bytes(picture(shown, [_legend(line, when) for line in shown]))
    replace_marked(page, table(lines, [when[line.policy] for line in lines]), "lengths")


def _legend(line: Line, when: dict[str, str]) -> str:
    return line.agent if line.baseline else f"{line.agent}, {when[line.policy]} training"


if __name__ == "__main__":
    main()
