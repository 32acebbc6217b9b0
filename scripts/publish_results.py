"""Write the results of finished runs into pages of the documentation.

No figure in those pages is typed by hand: they stand between markers and this program replaces them.

    python scripts/publish_results.py runs/memagent runs/memagent-seed1 runs/memagent-seed2 --readme
    python scripts/publish_results.py runs/memory_r1 runs/memory_r1-seed1 --page docs/memory_r1.md
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
    """Read the runs' summaries and rewrite the marked parts of the pages."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "runs", nargs="+", type=Path, help="finished run folders; the first gives the picture"
    )
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "quickstart.md")
    parser.add_argument("--readme", action="store_true", help="show the first run in the README too")
    arguments = parser.parse_args()
    summaries = [json.loads((run / "summary.json").read_text()) for run in arguments.runs]
    first = arguments.runs[0]
    images = ROOT / "docs" / "images"
    images.mkdir(parents=True, exist_ok=True)
    image = f"{arguments.page.stem}_reward.png"
    shutil.copyfile(first / "reward.png", images / image)
    example = _example(first / "report.md")
    picture = f"![reward by step]({{}}images/{image})"
    if arguments.readme:
        shown = [_one(summaries[0]), picture.format("docs/"), f"```text\n{example}\n```"]
        replace_marked(ROOT / "README.md", "\n\n".join(shown))
    page = [_all(summaries), *_mixes(summaries), picture.format(""), f"```text\n{example}\n```"]
    replace_marked(arguments.page, "\n\n".join(page))


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
        "| seed | | " + " | ".join(names) + f" | {names[-1]} / {names[0]} | seconds |",
        "|---|---|" + "---|" * (len(names) + 2),
    ]
    for summary in summaries:
        before, after = summary["before"], summary["after"]
        kept = after[names[-1]] / after[names[0]] if after[names[0]] else 0.0
        lines.append(
            f"| {summary['seed']} | before | " + " | ".join(f"{before[n]:.3f}" for n in names) + " | | |"
        )
        lines.append(
            "| | after | "
            + " | ".join(f"{after[n]:.3f}" for n in names)
            + f" | {kept:.0%} | {summary['seconds']:.0f} |"
        )
    return "\n".join(lines)


def _mixes(summaries: list[dict[str, Any]]) -> list[str]:
    """The operations on memory banks by seed and set, as shares; nothing for agents without a bank."""
    if not all("operations" in summary for summary in summaries):
        return []
    kinds = list(next(iter(summaries[0]["operations"]["after"].values())))
    lines = [
        "| seed | set | | " + " | ".join(kind.upper() for kind in kinds) + " |",
        "|---|---|---|" + "---|" * len(kinds),
    ]
    for summary in summaries:
        for number, name in enumerate(summary["operations"]["after"]):
            for label in ("before", "after"):
                mix = summary["operations"][label][name]
                seed = summary["seed"] if number == 0 and label == "before" else ""
                told = name if label == "before" else ""
                shares = " | ".join(f"{mix.get(kind, 0.0):.0%}" for kind in kinds)
                lines.append(f"| {seed} | {told} | {label} | {shares} |")
    return ["\n".join(lines)]


def _example(report: Path) -> str:
    _, found, rest = report.read_text(encoding="utf-8").partition("```text\n")
    return rest.partition("\n```")[0] if found else "no task was answered wrongly before and rightly after"


def replace_marked(page: Path, text: str) -> None:
    before, start, rest = page.read_text(encoding="utf-8").partition(START)
    _, end, after = rest.partition(END)
    if not (start and end):
        raise SystemExit(f"error: {page} has no {START} ... {END}")
    page.write_text(f"{before}{START}\n\n{text}\n\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
