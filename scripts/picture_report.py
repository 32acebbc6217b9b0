"""Take the pictures of a report page that the docs show: its top, and a group of rollouts side by side.

    python scripts/picture_report.py runs/memagent/report.html docs/images

Needs Chromium and the `dev` extra (playwright).
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def main() -> int:
    """Write report.png and report_group.png."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("page", type=Path, help="what memfactory report wrote")
    parser.add_argument("folder", type=Path, help="where the pictures go")
    options = parser.parse_args()
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None or not options.page.is_file():
        print(
            f"error: {'no Chromium here' if browser is None else f'{options.page}: no such file'}",
            file=sys.stderr,
        )
        return 2
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=browser, args=["--no-sandbox", "--disable-gpu"])
        page = chromium.new_page(viewport={"width": 1200, "height": 1010})
        page.goto(options.page.resolve().as_uri())
        page.wait_for_selector(".group")
        page.screenshot(path=options.folder / "report.png")
        page.set_viewport_size({"width": 1200, "height": 900})
        page.select_option("select[name=order]", "spread")
        page.wait_for_timeout(500)
        page.locator("#list .chip").first.click()
        page.locator("text=Group side by side").click()
        page.evaluate("document.querySelector('#rollouts').scrollIntoView()")
        page.screenshot(path=options.folder / "report_group.png")
        chromium.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
