"""The report page in a real browser: it loads in silence, filters, shows differences, and runs no text of a model.

Needs Chromium (a package of the distribution) and playwright, which drives it.
"""

from __future__ import annotations

import random
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from memfactory.reports.page import write_report
from memfactory.reports.run_data import read_runs
from tests.unit.reports.folders import call, make_run, rollout

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (extra dev)")
CHROMIUM = next(
    filter(
        None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable"))
    ),
    None,
)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here (apt-get install chromium)")

OPTIONS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
HOSTILE = "</script><script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'>"


@pytest.fixture(scope="module")
def browser() -> Iterator[playwright.Browser]:
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=OPTIONS)
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser: playwright.Browser) -> Iterator[playwright.Page]:
    """A page that fails the test when it complains, or asks for anything but its own file."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    trouble: list[str] = []
    page.on("console", lambda message: trouble.append(message.text))
    page.on("pageerror", lambda error: trouble.append(str(error)))
    page.on("request", lambda request: request.url.startswith("file:") or trouble.append(request.url))
    yield page
    page.close()
    assert trouble == []


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs: six groups of four rollouts in one, two groups in the other; one rollout is an attack."""
    folder = tmp_path_factory.mktemp("runs")
    kept = {step: [rollout(f"t{step}", i, i / 3) for i in range(4)] for step in range(1, 7)}
    for line in kept[6]:
        line["calls"].append(call("judge", "was it good?", "the purple zebra"))
    kept[3][0] |= {"question": HOSTILE, "reply": HOSTILE, "task": HOSTILE, "golds": [HOSTILE]}
    kept[3][0]["calls"][0] |= {"module": HOSTILE, "prompt": HOSTILE, "memory": HOSTILE, "reply": HOSTILE}
    first = make_run(folder / "first", seed=1, rollouts=kept)
    second = make_run(
        folder / "second", seed=2, rollouts={1: [rollout("t1", 0, 1.0)], 2: [rollout("t2", 0, 0.0)]}
    )
    write_report(read_runs([first, second]), folder / "report.html")
    return folder / "report.html"


@pytest.fixture
def viewer(page: playwright.Page, report: Path) -> playwright.Page:
    page.goto(report.as_uri())
    page.wait_for_selector(".group")
    return page


def counted(page: playwright.Page) -> str:
    text: str = page.inner_text("#count")
    return text.split(" · ")[0]


def expect(page: playwright.Page, count: str) -> None:
    """Wait until the line of counts begins so."""
    playwright.expect(page.locator("#count")).to_have_text(re.compile("^" + re.escape(count)))


def test_it_loads_and_filters(viewer: playwright.Page) -> None:
    assert counted(viewer) == "34 of 34 rollouts, in 16 groups"  # 24 + 2 of training, 4 + 4 held out

    viewer.select_option("select[name=source]", "training")
    expect(viewer, "26 of 34 rollouts, in 8 groups")
    viewer.select_option("select[name=step]", "2")
    expect(viewer, "5 of 34 rollouts, in 2 groups")
    viewer.select_option("select[name=run]", "first")
    expect(viewer, "4 of 34 rollouts, in 1 groups")
    viewer.fill("input[name=low]", "0.5")
    expect(viewer, "2 of 34 rollouts, in 1 groups")
    assert viewer.locator(".chip.out").count() >= 2
    viewer.click("#filters button[type=reset]")
    expect(viewer, "34 of 34")
    viewer.fill("input[name=text]", "PURPLE zebra")
    expect(viewer, "4 of 34 rollouts, in 1 groups")
    viewer.fill("input[name=text]", "")
    viewer.select_option("select[name=module]", "judge")
    expect(viewer, "4 of 34")
    viewer.fill("input[name=task]", "t1")
    expect(viewer, "0 of 34")
    assert viewer.inner_text("#list") == "No rollout fits these filters."


def test_it_shows_what_each_call_did_to_the_memory(viewer: playwright.Page) -> None:
    second = viewer.locator(".call").nth(1)
    assert second.locator(".call-head").inner_text().split("\n")[0].startswith("2 update")
    assert second.locator("del").all_inner_texts() == ["Rome"]
    assert second.locator("ins").all_inner_texts() == ["Oslo"]
    assert second.locator(".text").nth(0).inner_text() == "Ada lives in Rome"
    assert second.locator(".text").nth(1).inner_text() == "Ada lives in Oslo"
    assert "advantage -0.5" in second.inner_text()
    viewer.locator(".call summary").nth(1).click()
    assert viewer.inner_text(".prompt") == "block two"


def test_a_group_stands_side_by_side(viewer: playwright.Page) -> None:
    viewer.click("text=Group side by side")
    assert viewer.locator(".side thead .chip").all_inner_texts() == [
        "#0 reward 0", "#1 reward 0.3333", "#2 reward 0.6667", "#3 reward 1",
    ]  # fmt: skip
    assert viewer.locator(".side tbody tr").count() == 4  # three calls, and the answer
    viewer.locator(".side thead .chip").nth(3).click()
    assert "Reward\n1" in viewer.inner_text(".facts")


def test_keys_and_addresses_lead_to_rollouts(viewer: playwright.Page, report: Path) -> None:
    viewer.keyboard.press("j")
    assert "rollout 1" in viewer.inner_text("#detail .quiet >> nth=0")
    assert viewer.url.endswith("#rollout-1")
    viewer.keyboard.press("k")
    assert "rollout 0" in viewer.inner_text("#detail .quiet >> nth=0")
    viewer.goto(report.as_uri() + "#rollout-5")
    playwright.expect(viewer.locator("#detail h3")).to_contain_text("t2")


def test_texts_of_models_do_no_harm(viewer: playwright.Page) -> None:
    viewer.fill("input[name=text]", "onerror")
    expect(viewer, "1 of 34")
    viewer.locator("#list .chip:not(.out)").first.click()
    for summary in viewer.locator(".call summary").all():
        summary.click()
    assert viewer.inner_text("#detail h3") == HOSTILE
    assert viewer.locator(".prompt").first.inner_text() == HOSTILE
    viewer.click("text=Group side by side")
    assert viewer.locator("img").count() == 0
    assert viewer.evaluate("window.hacked") is None
    assert viewer.locator("script").count() == 2


def test_the_security_policy_forbids_other_scripts(browser: playwright.Browser, report: Path) -> None:
    page = browser.new_page()
    page.goto(report.as_uri())
    page.evaluate(
        "() => { const script = document.createElement('script'); script.textContent = 'window.hacked = 1';"
        " document.body.append(script); }"
    )
    assert page.evaluate("window.hacked") is None
    page.close()


def test_curves_can_be_hidden_and_read(viewer: playwright.Page) -> None:
    chart = viewer.locator("figure[data-chart=reward-total]")
    line = chart.locator("[id='reward-total-s1']")
    assert line.is_visible()
    chart.locator(".legend button", has_text="second").click()
    assert not line.is_visible()
    chart.locator("svg").hover()
    pointer = chart.locator(".pointer")
    assert pointer.inner_text().startswith("step 5") or pointer.inner_text().startswith("step 6")
    assert "first" in pointer.inner_text()
    assert "second" not in pointer.inner_text()


def test_it_fits_a_phone_and_has_a_dark_side(viewer: playwright.Page) -> None:
    viewer.set_viewport_size({"width": 390, "height": 844})
    assert viewer.evaluate("document.documentElement.scrollWidth") <= 390
    light = viewer.evaluate("getComputedStyle(document.body).backgroundColor")
    viewer.click("#theme")
    assert viewer.evaluate("getComputedStyle(document.body).backgroundColor") != light


def test_thousands_of_rollouts_stay_usable(page: playwright.Page, tmp_path: Path) -> None:
    kept = {step: [rollout(f"t{step}", i, i % 2) for i in range(8)] for step in range(1, 501)}
    path = make_run(tmp_path / "long", rollouts=kept, evaluate=False)
    report = write_report(read_runs([path]), tmp_path / "report.html")
    assert report.page.stat().st_size < 1_000_000
    page.goto(report.page.as_uri())
    page.wait_for_selector(".group")
    assert counted(page) == "3,000 of 3,000 rollouts, in 375 groups"
    assert page.locator(".group").count() == 60
    page.click("text=Show 60 more of 315")
    assert page.locator(".group").count() == 120
    assert "3,000 of 4,000 recorded rollouts" in page.inner_text(".note")
    took = page.evaluate(
        "() => { const start = performance.now(); filter(); return performance.now() - start; }"
    )
    assert took < 2000  # milliseconds; about 20 on an idle machine


def test_differences_in_the_page_are_right_and_shortest(viewer: playwright.Page) -> None:
    draw = random.Random(5)
    words = ["a", "b", "c", "x1", " ", "\n", ".", "é", "日"]
    pairs = [["".join(draw.choices(words, k=draw.randrange(12))) for _ in range(2)] for _ in range(150)]
    pairs += [["", ""], ["same", "same"], ["a " * 3000, "b " * 3000]]
    words_and = "text => text.match(/\\s+|[\\p{L}\\p{N}_]+|[^]/gu) || []"
    found = viewer.evaluate(
        f"pairs => pairs.map(([a, b]) => [difference(a, b), compare(({words_and})(a), ({words_and})(b))])",
        pairs,
    )
    for (before, after), (shown, shortest) in zip(pairs, found, strict=True):
        for segments in filter(None, (shown, shortest)):
            assert "".join(text for kind, text in segments if kind != "ins") == before
            assert "".join(text for kind, text in segments if kind != "del") == after
        if len(before) < 100:
            old, new = tokens(before), tokens(after)
            changed = sum(len(tokens(text)) for kind, text in shortest if kind != "same")
            assert changed == len(old) + len(new) - 2 * longest_common(old, new)
    assert viewer.evaluate("difference('Ada likes red.', 'Bo has a cat.')") == [
        ["del", "Ada likes red"],
        ["ins", "Bo has a cat"],
        ["same", "."],
    ]


def tokens(text: str) -> list[str]:
    """Words, spaces between them, and single other characters."""
    return re.findall(r"\s+|\w+|[^\w\s]", text)


def longest_common(a: list[str], b: list[str]) -> int:
    """Length of the longest common subsequence, by the textbook recurrence."""
    row = [0] * (len(b) + 1)
    for left in a:
        previous = row[:]
        for j, right in enumerate(b, start=1):
            row[j] = previous[j - 1] + 1 if left == right else max(previous[j], row[j - 1])
    return row[-1]
