"""report.html, read as text."""

import json
import re
import time
from html.parser import HTMLParser
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from tests.comparison.fakes import CENTRALIZED, FEDERATED
from tests.comparison.fakes import Fake as Comparable
from tests.report.fakes import EVIL, Fake, rewrite
from zk0.commands.report import report
from zk0.errors import Zk0Error
from zk0.report import charts
from zk0.report.facts import duration, settings
from zk0.report.page import write_report
from zk0.report.reading import read_record

MEGABYTE = 1e6


class Page(HTMLParser):
    """What a browser would see: elements, and text outside of scripts and styles."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.elements and self.elements[-1][0] not in ("script", "style"):
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def page_of(run: Path, *others: Path) -> Page:
    return Page(write_report(run, others).read_text())


def test_verdict_comes_first_and_says_better(make):
    page = page_of(make(Fake()))
    heading = next(i for i, word in enumerate(page.words) if word == "Better than its start")
    assert "best policy loss" not in page.words[:heading]
    assert page.text.rindex("Better than its start") < page.text.index("best policy loss")
    sentence = (
        "Policy loss 2.2000 → 0.8944 (-59%): better than its start, success in "
        "8 of 12 rollouts; best in round 4"
    )
    assert sentence in page.text


def test_verdict_says_worse_and_that_a_run_goes_on(make):
    page = page_of(make(Fake(floor=3.0, ended=False, planned=9)))
    assert "Not better than its start" in page.text
    assert "So far, round 4 of 9: policy loss 2.2000 → 3.0704" in page.text


def test_run_that_has_only_begun_says_so_in_every_section(make):
    page = page_of(make(Fake(rounds=0, planned=4, ended=False)))
    assert "No verdict yet" in page.text
    for sentence in ("No client has replied yet", "No round has been planned", "No rollouts have"):
        assert sentence in page.text


def test_sections_come_in_the_order_of_interest(make):
    page = page_of(make(Fake()))
    ids = [attributes["id"] for attributes in page.all("section")]
    assert ids == [
        *("verdict", "server", "clients", "joints", "schedule", "updates", "tasks", "cost"),
        *("incidents", "videos", "configuration"),
    ]


@pytest.mark.parametrize("where", ["slug", "file", "model", "facts"])
def test_text_from_the_network_is_harmless(make, where: str):
    """A client's slug, a reason and an instruction (in the fake), a file's and a model's name."""
    run = make(Fake(films=[4], config={"model-name": f"{EVIL}\"'><img src=x onerror=alert(1)>"}))
    video = next(run.glob("evaluate/round_4/server/*.mp4"))
    if where == "file":
        video.rename(video.with_name('rollout_"><img src=x onerror=alert(1)>.mp4'))
    if where == "facts":
        rewrite(video.with_suffix(".json"), lambda facts: facts.update(task=f'">{EVIL}'))
    page = page_of(run)
    scripts = page.all("script")
    assert [each.get("id") for each in scripts] == ["data", None, None]
    assert page.all("img") == []
    assert not any(name.startswith("on") for _, each in page.elements for name in each)
    html = (run / "report.html").read_text()
    assert EVIL not in html
    assert EVIL in page.text


def test_data_are_json_that_cannot_end_their_element(make):
    html = write_report(make(Fake())).read_text()
    (data,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', html, re.S)
    assert "<" not in data
    figures = json.loads(data)["figures"]
    assert figures[0]["id"] == "server-loss"
    assert any(series["name"] == f"2 {EVIL}" for f in figures for series in f["series"])


def test_policy_names_every_inlined_script_and_allows_nothing_else(make):
    page = page_of(make(Fake()))
    (policy,) = [m["content"] for m in page.all("meta") if m.get("http-equiv")]
    assert policy is not None
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy
    assert not any(each.get("style") for _, each in page.elements)
    links = [each["href"] for each in page.all("a")]
    assert all(link and link.startswith("#") for link in links)


def test_every_chart_has_data_a_sentence_and_a_table(make):
    run = make(Fake())
    figures = [each for part in charts.sections(read_record(run)) for each in part.figures]
    assert len(figures) == 1 + 3 + 4 + 2 + 1 + 3 + 2
    for figure in figures:
        assert figure.series
        assert all(each.points or each.dots for each in figure.series)
        assert figure.table
        assert {len(row) for row in figure.table} == {len(figure.heading)}
        assert figure.label.startswith(figure.title)
    page = page_of(run)
    plots = [each for each in page.all("div") if (each.get("class") or "").startswith("plot")]
    assert [each["aria-label"] for each in plots] == [figure.label for figure in figures]


def test_stages_have_wilsons_intervals(make):
    figures = charts.sections(read_record(make(Fake())))[5].figures
    (stages,) = [figure for figure in figures if figure.kind == "dots"]
    assert stages.table == [
        ["touch", "", "", "66.67 [30, 90]"],
        ["stack", "83.33 [44, 97]", "83.33 [44, 97]", "66.67 [30, 90]"],
    ]


def test_cosines_are_drawn_where_the_record_has_them(make):
    run = make(Fake())

    def add(content):
        for each in content["rounds"]:
            each["cosine"] = {"mean": 0.5, "pairs": {"0-1": 0.75, "0-2": 0.25}}

    rewrite(run / "server/federated_metrics.json", add)
    updates = charts.sections(read_record(run))[4].figures
    assert [figure.id for figure in updates] == ["norms", "cosine"]
    assert {name.split()[0] for name in charts._cosines(read_record(run))} >= {"all", "0", "1"}


def test_incidents_have_their_reasons(make):
    page = page_of(make(Fake(void=3)))
    assert f"2 excluded reply 2 {EVIL} its {EVIL} weights are not finite" in page.text
    assert "3 void round" in page.text
    assert "4 replies excluded" in page.text


def test_changed_keys_come_before_the_others(make):
    record = read_record(make(Fake(config={"local-steps": 7})))
    found = settings(record, {"local-steps": 50, "num-server-rounds": 4})
    changed = {each.key: (each.value, each.default) for each in found.changed}
    assert changed["local-steps"] == ("7", "50")
    assert "num-server-rounds" not in changed
    assert "no pyproject.toml" in settings(record, None).note


def test_videos_are_linked_with_their_facts_and_only_the_newest_are_in_the_page(make):
    page = page_of(make(Fake(films=[2, 4])))
    first, *_ = page.all("video")
    assert first["src"] == "evaluate/round_4/server/rollout_touch%20it_1.mp4"
    assert (first["preload"], "controls" in first) == ("none", True)
    assert "smoothness 400 °/s²" in page.text
    assert len(page.all("template")) == 1


def test_video_without_facts_is_shown_with_the_reason(make):
    run = make(Fake(films=[4]))
    next(run.glob("evaluate/round_4/server/*.json")).unlink()
    assert "not to be read: No such file" in page_of(run).text


# --- comparison -----------------------------------------------------------------------------------


def comparable(make, fake: Comparable) -> Path:
    """A run with evidence to compare, and what a report needs beside it."""
    run = make(fake)

    def complete(about):
        about.update(versions={}, git_revision=None)

    rewrite(run / "config.json", complete)
    name = run / "server/federated_metrics.json"
    rewrite(name, lambda c: [r["server"].update(datasets={}) for r in c["rounds"] if "server" in r])
    return run


def test_verdict_compares_with_the_runs_that_it_can_be_compared_with(make):
    run = comparable(make, FEDERATED)
    central, other = make(CENTRALIZED), make(Comparable(changes={"budget": {
        "steps_per_client": {"0": 1, "1": 1}, "batch_size": 32}}))  # fmt: skip
    page = page_of(run, central, other)
    assert re.search(r"Than centralized: better in \d+ of \d+ metrics", page.text)
    assert "Not compared:" in page.text
    assert "the budget of client 0" in page.text


def test_running_federation_is_not_compared(make):
    run = comparable(make, Comparable(last_event="plan"))
    assert "has not finished" in page_of(run, make(CENTRALIZED)).text


# --- cost, command --------------------------------------------------------------------------------


def test_hundred_rounds_of_twelve_clients_take_under_two_seconds_and_three_megabytes(make):
    run = make(Fake(rounds=100, slugs=[f"client-{i}" for i in range(12)]))
    start = time.process_time()
    path = write_report(run)
    assert time.process_time() - start < 2
    assert path.stat().st_size < 3 * MEGABYTE


def test_same_run_gives_the_same_page_and_leaves_nothing_else(make):
    run = make(Fake())
    first = write_report(run).read_bytes()
    assert write_report(run).read_bytes() == first
    assert not list(run.glob(".*"))


def test_command(make, monkeypatch: pytest.MonkeyPatch):
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", lambda url: opened.append(url) or True)
    app = typer.Typer()
    app.command()(report)
    run = make(Fake())
    done = CliRunner().invoke(app, [str(run), "--open", "--compare", str(make(Fake(floor=0.4)))])
    assert done.exit_code == 0, done.output
    assert done.output.strip() == f"report: {run / 'report.html'}"
    assert opened == [(run / "report.html").as_uri()]


def test_run_to_compare_with_has_to_be_one(make, tmp_path: Path):
    with pytest.raises(Zk0Error, match=r"--compare: .* is no run folder"):
        report(str(make(Fake())), others=[tmp_path])


def test_folder_that_cannot_be_written_is_one_line(make):
    run = make(Fake())
    (run / "report.html").mkdir()
    with pytest.raises(Zk0Error, match=r"report\.html cannot be written: Is a directory"):
        write_report(run)
    assert not list(run.glob(".*"))


@pytest.mark.parametrize(
    ("seconds", "said"), [(42.4, "42 s"), (341, "5 min 41 s"), (3900, "1 h 05 min")]
)
def test_durations(seconds: float, said: str):
    assert duration(seconds) == said
