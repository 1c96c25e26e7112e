"""The page in a real browser, beside the services of the demo."""

from __future__ import annotations

import re

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, ViewportSize, expect

from tests.browser.conftest import SECONDS, Visit
from tests.browser.stack import DESKTOP, PHONE, Stack, picture
from tests.services import eventually


@pytest.fixture
def healthy(stack: Stack) -> Stack:
    """A stack that predicts well and has swapped a model."""

    def well() -> bool:
        state = stack.state()
        return bool(
            state and state["health"]["state"] == "well" and state["windows"]["1000"]["n"] > 500
        )

    eventually(well, 120, lambda: str(stack.state().get("health")))
    return stack


def number(page: Page, name: str) -> int:
    return int(page.get_attribute("#curve", f"data-{name}") or 0)


def test_the_curve_moves_and_a_swap_appears(healthy: Stack, visit: Visit) -> None:
    page = visit(healthy.address)
    expect(page.locator("#words")).to_have_text("Healthy")
    points, version = number(page, "points"), page.inner_text("#serving")
    label = page.get_attribute("#curve", "aria-label")
    eventually(lambda: number(page, "points") > points)
    eventually(lambda: number(page, "swaps") > 0)
    eventually(lambda: page.inner_text("#serving") != version)
    eventually(lambda: page.get_attribute("#curve", "aria-label") != label)
    expect(page.locator("#changed")).to_contain_text(re.compile("took over from|drift: "))
    shown = float(page.inner_text("#accuracy"))
    assert 0.5 < shown <= 1.0
    assert page.locator("#models tr").count() > 1
    assert page.locator("#curve canvas").bounding_box()
    picture(page, "desktop")


@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_first_screen_says_what_matters_and_nothing_keeps_anybody_out(
    healthy: Stack, visit: Visit, viewport: ViewportSize, scheme: str
) -> None:
    page = visit(healthy.address, viewport=viewport, color_scheme=scheme)
    expect(page.locator("#words")).to_have_text("Healthy")
    for name in ("words", "accuracy", "baseline", "serving", "since", "changed"):
        box = page.locator(f"#{name}").bounding_box()
        assert box, name
        assert box["y"] + box["height"] <= viewport["height"], name
        assert box["x"] + box["width"] <= viewport["width"] + 1, name
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    picture(page, f"{'phone' if viewport == PHONE else 'desktop'}-{scheme}")
    found = Axe().run(page).response["violations"]
    assert [
        (each["id"], [node["html"] for node in each["nodes"]])
        for each in found
        if each["impact"] in ("serious", "critical")
    ] == []


def test_a_window_and_a_version_are_chosen_by_keyboard_and_a_link_leads_to_them(
    healthy: Stack, visit: Visit
) -> None:
    page = visit(healthy.address)
    expect(page.locator("#words")).to_have_text("Healthy")
    page.keyboard.press("Tab")
    expect(page.locator(".skip")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#main")).to_be_focused()
    page.locator("#window").focus()
    for _ in range(3):  # a text whose letters come too slowly chooses something else
        page.keyboard.press("ArrowDown")
    expect(page.locator("#t-accuracy")).to_have_text("Accuracy, last hour")
    expect(page).to_have_url(re.compile("window=3600"))
    page.locator("#models tr:last-child a >> nth=0").focus()
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile("model="))
    version = page.url.rpartition("model=")[2]  # each new model moves the others down the table
    expect(page.locator("#t-accuracy")).to_have_text(f"Accuracy, model {version}")
    page.locator("[data-move=earlier]").focus()
    page.keyboard.press("Space")
    expect(page.locator("[data-move=live]")).to_have_attribute("aria-pressed", "false")
    expect(page).to_have_url(re.compile("from="))

    again = visit(page.url)
    expect(again.locator("#t-accuracy")).to_have_text(f"Accuracy, model {version}")
    expect(again.locator("#window")).to_have_value("3600")
    expect(again.locator("[data-move=live]")).to_have_attribute("aria-pressed", "false")
    again.click("[data-move=live]")
    expect(again).not_to_have_url(re.compile("from="))
    moment = again.locator("#models tr:first-child a >> nth=1")
    moment.click()
    expect(again).to_have_url(re.compile("&t=2"))


def test_markup_in_what_is_rejected_stays_text(healthy: Stack, visit: Visit) -> None:
    attack = "<img src=x onerror=\"document.title='taken'\"><script>document.title='taken'</script>"
    state = eventually(healthy.state)
    rejection = {"time": "2026-01-01T00:00:00.000Z", "source": [0, 1], "value": attack}
    state["rejections"] = [{**rejection, "reason": f"id: {attack}"}]
    state["refusals"] = [
        {"time": "2026-01-01T00:00:00.000Z", "version": attack, "status": attack,
         "replica": attack, "reason": attack}
    ]  # fmt: skip
    state["models"][0] |= {"algorithm": attack, "reason": attack, "barred": attack, "status": ""}
    state["windows"]["86400"]["reasons"] = {attack: 1}
    page = visit("about:blank")
    page.add_init_script(FAKE_EVENTS)
    page.goto(healthy.address)
    page.evaluate("state => feed(JSON.stringify(state))", state)
    expect(page.locator("#rejections td >> nth=4")).to_have_text(attack)
    assert page.locator("main img, main script").count() == 0
    assert page.title() == "Classifier: live"


FAKE_EVENTS = """
window.EventSource = class {
  static CLOSED = 2;
  constructor() { window.feed = (data) => this.onmessage({ data }); }
};
"""
"""Lets the test say what the dashboard sends."""


def test_the_broker_stops_and_comes_back_and_the_page_says_so(healthy: Stack, visit: Visit) -> None:
    page = visit(healthy.address)
    expect(page.locator("#words")).to_have_text("Healthy")
    healthy.kafka.stop()
    expect(page.locator("#words")).to_have_text("Kafka is unreachable")
    expect(page.locator("#why")).to_contain_text("since ")
    picture(page, "unreachable")
    healthy.kafka.start()
    expect(page.locator("#words")).to_have_text("Healthy", timeout=2 * SECONDS)
    before = page.inner_text("#running")
    eventually(lambda: page.inner_text("#running") != before)


def test_the_page_says_that_the_dashboard_is_away_and_connects_again(
    healthy: Stack, visit: Visit, errors: list[str]
) -> None:
    page = visit(healthy.address)
    expect(page.locator("#words")).to_have_text("Healthy")
    healthy.dashboard.stop()
    expect(page.locator("#words")).to_have_text("Disconnected")
    picture(page, "disconnected")
    healthy.start_dashboard()
    expect(page.locator("#words")).to_have_text("Healthy")
    # The browser itself says that nobody answered; there is no way to keep it from that.
    errors[:] = [line for line in errors if "net::ERR_" not in line]


REPLAY = """
async (seconds) => {
  // What changes in a second at 10,000 records a second, with the curves at their full length.
  const sent = JSON.parse(JSON.stringify(BASE));
  const took = [];
  for (let second = 0; second < seconds; second++) {
    const now = BASE_TIME + second;
    for (const [name, curve] of Object.entries(sent.histories)) {
      const step = Number(name) / 600;
      curve.time = Array.from({ length: 601 }, (_, i) => now - (600 - i) * step);
      curve.recent = Array.from({ length: 601 }, (_, i) => 0.8 + 0.1 * Math.sin(now + i));
      curve.running = Array.from({ length: 601 }, () => 0.85);
      curve.model = Array.from({ length: 601 }, (_, i) => second * 2 + i);
    }
    for (const window of Object.values(sent.windows)) {
      window.n += 10000;
      window.accuracy = 0.8 + 0.1 * Math.sin(second);
    }
    sent.models = Array.from({ length: 200 }, (_, i) => ({
      ...BASE.models[0], version: second * 2 + 200 - i, predictions: 5000 + second,
    }));
    const data = JSON.stringify(sent);
    const begin = performance.now();
    feed(data);
    took.push(performance.now() - begin);
    if (second % 10 === 9) await new Promise(requestAnimationFrame);
  }
  return took;
}
"""


def test_an_hour_at_10_000_records_a_second_leaves_the_heap_flat_and_the_page_quick(
    healthy: Stack, visit: Visit
) -> None:
    page = visit("about:blank")
    page.add_init_script(FAKE_EVENTS)
    page.goto(healthy.address)
    page.evaluate("state => { window.BASE = state; window.BASE_TIME = Date.now() / 1000; }",
                  eventually(healthy.state))  # fmt: skip
    session = page.context.new_cdp_session(page)

    def heap() -> int:
        session.send("HeapProfiler.collectGarbage")
        return int(session.send("Runtime.getHeapUsage")["usedSize"])

    page.evaluate(REPLAY, 300)
    before = heap()
    took = sorted(page.evaluate(REPLAY, 3_600))
    grown = heap() - before
    middle, late = took[len(took) // 2], took[int(0.99 * len(took))]
    print(f"\na second of the page: {middle:.1f} ms, 99 % below {late:.1f} ms, most {took[-1]:.1f}")
    print(f"heap {before / 1e6:.1f} MB, {grown / 1e6:+.2f} MB after an hour")
    assert grown < 2_000_000
    assert middle < 2 * 50  # of the slowest, a busy machine says nothing
