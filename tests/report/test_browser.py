"""report.html in a real browser: Chromium, headless and without a network."""

import base64
import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.report.fakes import Fake
from zk0.report.page import write_report

BROWSER, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
if not (BROWSER and DRIVER):
    pytest.skip("chromium and chromedriver are not installed", allow_module_level=True)
webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
SWITCHES = (
    *("headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-sync"),
    *("disable-background-networking", "disable-component-update", "hide-scrollbars"),
    "autoplay-policy=no-user-gesture-required",
)
# What each chart shows: the number of its series that hold a value, and whether a pixel is set.
DRAWN = """
return [...document.querySelectorAll(".plot")].map((plot) => {
  const chart = echarts.getInstanceByDom(plot);
  if (!chart) return [plot.id, 0, false];
  const canvas = plot.querySelector("canvas");
  const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
  const series = chart.getOption().series.filter((each) => each.data.length);
  return [plot.id, series.length, pixels.some((value) => value)];
});
"""


class Browser:
    """Chromium with its console and its requests."""

    def __init__(self, profile: Path) -> None:
        options = webdriver.ChromeOptions()
        options.binary_location = BROWSER
        for switch in (*SWITCHES, f"user-data-dir={profile}"):
            options.add_argument(f"--{switch}")
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        service = webdriver.chrome.service.Service(DRIVER)
        self.driver = webdriver.Chrome(options=options, service=service)

    def open(self, page: Path, width: int = 1280, scheme: str = "light") -> None:
        """Open the page afresh, with what it logged and requested before forgotten."""
        self.resize(width, 844)
        media = [{"name": "prefers-color-scheme", "value": scheme}]
        self.call("Emulation.setEmulatedMedia", features=media)
        self.driver.get("about:blank")
        self.driver.get_log("browser")
        self.driver.get_log("performance")
        self.driver.get(page.as_uri())
        self.wait("document.documentElement.dataset.ready")

    def resize(self, width: int, height: int) -> None:
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        self.call("Emulation.setDeviceMetricsOverride", **size)

    def call(self, command: str, **values: Any) -> Any:
        return self.driver.execute_cdp_cmd(command, values)

    def run(self, script: str) -> Any:
        return self.driver.execute_script(script)

    def wait(self, condition: str, seconds: float = 10) -> None:
        deadline = time.monotonic() + seconds
        while not self.run(f"return Boolean({condition})"):
            assert time.monotonic() < deadline, condition
            time.sleep(0.02)

    def show_all(self) -> int:
        """Let the window hold the whole page, so that every chart is drawn; the page's height."""
        height = self.run("return document.documentElement.scrollHeight")
        self.resize(self.run("return innerWidth"), height)
        self.wait("[...document.querySelectorAll('.plot')].every(echarts.getInstanceByDom)")
        time.sleep(0.3)
        return height

    def picture(self) -> bytes:
        return base64.b64decode(self.call("Page.captureScreenshot")["data"])

    def press(self, selector: str, key: str) -> None:
        self.run(f"document.querySelector('{selector}').focus()")
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key)

    def requests(self) -> set[str]:
        """What was asked for since `open`, but for what the browser draws video controls with."""
        messages = [json.loads(each["message"]) for each in self.driver.get_log("performance")]
        sent = [m["message"]["params"] for m in messages if "requestWillBeSent" in str(m)]
        found = {each["request"]["url"] for each in sent if "request" in each}
        return {url for url in found if not url.startswith("data:")}


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    made = Browser(tmp_path_factory.mktemp("profile"))
    yield made
    made.driver.quit()


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a run with all there can be."""
    run = tmp_path_factory.mktemp("runs") / "run"
    return write_report(Fake(rounds=6, void=3, films=[3, 6]).write(run))


@pytest.fixture
def quiet(browser: Browser) -> Iterator[None]:
    """Neither a line in the console nor a request that leaves the machine."""
    yield
    assert browser.driver.get_log("browser") == []
    assert {url for url in browser.requests() if not url.startswith("file:")} == set()


def test_page_loads_alone_and_every_chart_has_data(browser: Browser, page: Path, quiet):
    browser.open(page)
    browser.show_all()
    drawn = browser.run(DRAWN)
    assert len(drawn) == 1 + 3 + 4 + 2 + 1 + 3 + 2
    for name, series, painted in drawn:
        assert series > 0, name
        assert painted, name
    assert browser.run("return document.title") == "Better than its start: zk0 run run"
    assert browser.requests() == {page.as_uri()}


def test_policy_forbids_requests_and_foreign_scripts(browser: Browser, page: Path):
    browser.open(page)
    browser.run(
        "const s = document.createElement('script'); s.textContent = 'window.evil = 1';"
        "document.body.append(s); new Image().src = 'https://example.com/a.png';"
        "fetch('https://example.com/').catch(() => {});"
    )
    assert browser.run("return window.evil === undefined")
    lines = [each["message"] for each in browser.driver.get_log("browser")]
    assert len(lines) >= 3
    assert all("Content Security Policy" in line for line in lines)


def test_phone_needs_no_sideways_scrolling(browser: Browser, page: Path, quiet):
    browser.open(page, width=390)
    browser.show_all()
    assert browser.run("return document.documentElement.scrollWidth") == 390
    assert all(painted for _, _, painted in browser.run(DRAWN))


def test_dark_mode_is_dark_with_readable_charts(browser: Browser, page: Path, quiet):
    from io import BytesIO

    from PIL import Image

    luminance = {}
    for scheme in ("light", "dark"):
        browser.open(page, scheme=scheme)
        browser.show_all()
        with Image.open(BytesIO(browser.picture())) as image:
            grey = image.convert("L")
            luminance[scheme] = grey.resize((1, 1)).getpixel((0, 0))
            assert max(grey.getdata()) - min(grey.getdata()) > 180
    assert luminance["light"] > 200
    assert luminance["dark"] < 60


def test_video_plays(browser: Browser, page: Path, quiet):
    browser.open(page)
    assert browser.run("return document.querySelector('video').currentTime") == 0
    browser.run("const v = document.querySelector('video'); v.muted = true; v.play();")
    browser.wait("document.querySelector('video').currentTime > 0.2")
    assert browser.run("return document.querySelector('video').videoWidth") == 96


def test_older_videos_appear_once_their_round_is_opened(browser: Browser, page: Path, quiet):
    browser.open(page)
    count = "document.querySelectorAll('video').length"
    assert browser.run(f"return {count}") == 2
    browser.run("document.querySelector('details.later').open = true")
    browser.wait(f"{count} === 4")


def test_series_are_hidden_and_shown_by_their_buttons(browser: Browser, page: Path, quiet):
    browser.open(page)
    names = (
        "return echarts.getInstanceByDom(document.getElementById('server-loss'))"
        ".getOption().series.map((each) => each.name)"
    )
    button = '[data-figure=server-loss][data-series="1"]'
    browser.run(f"document.querySelector('{button}').click()")
    assert browser.run(names) == ["composite", "far"]
    pressed = f"return document.querySelector('{button}').getAttribute('aria-pressed')"
    assert browser.run(pressed) == "false"
    browser.run(f"document.querySelector('{button}').click()")
    assert browser.run(names) == ["composite", "near", "far"]


def test_arrow_keys_tell_each_round(browser: Browser, page: Path, quiet):
    browser.open(page)
    browser.run("document.getElementById('server-loss').scrollIntoView()")
    browser.wait("echarts.getInstanceByDom(document.getElementById('server-loss'))")
    browser.press("#server-loss", "ArrowRight")
    browser.press("#server-loss", "ArrowRight")
    said = browser.run("return document.getElementById('live').textContent")
    assert said == "round 1: composite 1.6, near 1.4, far 1.8"
    browser.wait("document.querySelector('#server-loss .tip b')?.textContent === 'round 1'")


def test_tools_choose_rounds_and_the_scale(browser: Browser, page: Path, quiet):
    browser.open(page)
    browser.run("document.getElementById('server-loss').scrollIntoView()")
    option = "echarts.getInstanceByDom(document.getElementById('server-loss'))?.getOption()"
    browser.wait(option)
    browser.run(
        "document.getElementById('from').value = 2; document.getElementById('log').checked = true;"
        "document.getElementById('from').dispatchEvent(new Event('change', {bubbles: true}))"
    )
    assert browser.run(f"return [{option}.xAxis[0].min, {option}.yAxis[0].type]") == [2, "log"]
    browser.run("document.querySelector('#tools [type=reset]').click()")
    browser.wait(f"{option}.xAxis[0].min === 0")


def test_printing_draws_every_chart(browser: Browser, page: Path, quiet):
    browser.open(page, scheme="dark")
    browser.run("dispatchEvent(new Event('beforeprint'))")
    assert all(series for _, series, _ in browser.run(DRAWN))
    colour = "getComputedStyle(document.body).backgroundColor"
    assert browser.run(f"return {colour}") == "rgb(244, 246, 248)"
    browser.run("dispatchEvent(new Event('afterprint'))")
    assert browser.run(f"return {colour}") == "rgb(16, 21, 26)"


def test_hundred_rounds_of_twelve_clients_are_interactive_within_a_second(
    browser: Browser, tmp_path: Path, quiet
):
    run = Fake(rounds=100, slugs=[f"client-{i}" for i in range(12)]).write(tmp_path / "large")
    path, took = write_report(run), []
    for _ in range(3):  # other tests may be at work beside this one
        browser.open(path)
        took.append(float(browser.run("return document.documentElement.dataset.ready")))
    assert min(took) < 1000
