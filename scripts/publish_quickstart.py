"""Write the quickstart's results into README.md and docs/quickstart.md, from finished runs.

No figure in those pages is typed by hand: they stand between markers and this program replaces them.

    python scripts/publish_quickstart.py runs/memagent runs/memagent-seed1 runs/memagent-seed2
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
START, END = "<!-- results:start -->", "<!-- results:end -->"


def main() -> None:
    """Read the runs' summaries and rewrite the marked parts of both pages."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "runs", nargs="+", type=Path, help="finished run folders; the first is shown in the README"
    )
    parser.add_argument("--readme", type=Path, default=ROOT / "README.md")
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "quickstart.md")
    arguments = parser.parse_args()
    summaries = [json.loads((run / "summary.json").read_text()) for run in arguments.runs]
    first = arguments.runs[0]
    images = ROOT / "docs" / "images"
    images.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(first / "reward.png", images / "quickstart_reward.png")
    example = _example(first / "report.md")
    picture = "![reward by step]({}images/quickstart_reward.png)"
    shown = "\n\n".join([_one(summaries[0]), picture.format("docs/"), f"```text\n{example}\n```"])
    _replace(arguments.readme, shown)
    page = "\n\n".join([_all(summaries), picture.format(""), f"```text\n{example}\n```"])
    _replace(arguments.page, page)


def _one(summary: dict[str, Any]) -> str:
    names = list(summary["after"])
    lines = [
        f"Exact match on held-out tasks (seed {summary['seed']}, {summary['steps']} steps, "
        f"{summary['seconds']:.0f} s with engine start and both evaluations):",
        "",
        "| text length | " + " | ".join(names) + " |",
        "|---|" + "---|" * len(names),
        "| before | " + " | ".join(f"{summary['before'][name]:.3f}" for name in names) + " |",
        "| after | " + " | ".join(f"{summary['after'][name]:.3f}" for name in names) + " |",
    ]
    return "\n".join(lines)


def _all(summaries: list[dict[str, Any]]) -> str:
    names = list(summaries[0]["after"])
    lines = [
        "| seed | | " + " | ".join(names) + " | 16x / 1x | seconds |",
        "|---|---|" + "---|" * (len(names) + 2),
    ]
    for summary in summaries:
        before, after = summary["before"], summary["after"]
        kept = after["16x"] / after["1x"] if after["1x"] else 0.0
        lines.append(
            f"| {summary['seed']} | before | " + " | ".join(f"{before[n]:.3f}" for n in names) + " | | |"
        )
        lines.append(
            "| | after | "
            + " | ".join(f"{after[n]:.3f}" for n in names)
            + f" | {kept:.0%} | {summary['seconds']:.0f} |"
        )
    return "\n".join(lines)


def _example(report: Path) -> str:
    _, found, rest = report.read_text(encoding="utf-8").partition("```text\n")
    return rest.partition("\n```")[0] if found else "no task was answered wrongly before and rightly after"


def _replace(page: Path, text: str) -> None:
    before, start, rest = page.read_text(encoding="utf-8").partition(START)
    _, end, after = rest.partition(END)
    if not (start and end):
        raise SystemExit(f"error: {page} has no {START} ... {END}")
    page.write_text(f"{before}{START}\n\n{text}\n\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
