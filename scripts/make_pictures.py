"""The README's pictures of a run: docs/images/watch.svg (the terminal) and report.png (the page).

.venv/bin/python scripts/make_pictures.py outputs/RUN [outputs/RUN_TO_COMPARE ...]

Needs Chromium and its driver.
"""

import argparse
import shutil
import time
from pathlib import Path

from rich.console import Console
from selenium import webdriver

from zk0.report.page import write_report
from zk0.watching.follow import Watched
from zk0.watching.screen import picture

IMAGES = Path(__file__).resolve().parents[1] / "docs" / "images"
WIDTH = 100  # columns
SIZE = 1200, 1600  # pixels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("others", type=Path, nargs="*")
    options = parser.parse_args()
    draw_terminal(options.run)
    photograph(write_report(options.run, options.others))


def draw_terminal(run: Path) -> None:
    watched = Watched(run)
    watched.poll()
    with open("/dev/null", "w") as nowhere:
        console = Console(width=WIDTH, record=True, file=nowhere, force_terminal=True)
        console.print(picture(watched, WIDTH))
    console.save_svg(str(IMAGES / "watch.svg"), title="zk0 watch")


def photograph(page: Path) -> None:
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for switch in ("headless", "no-sandbox", "hide-scrollbars", f"window-size={SIZE[0]},{SIZE[1]}"):
        options.add_argument(f"--{switch}")
    service = webdriver.chrome.service.Service(shutil.which("chromedriver"))
    with webdriver.Chrome(options=options, service=service) as browser:
        browser.get(page.absolute().as_uri())
        time.sleep(3)  # until charts and the first frames of videos are drawn
        browser.save_screenshot(str(IMAGES / "report.png"))


if __name__ == "__main__":
    main()
