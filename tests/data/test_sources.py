from pathlib import Path

import pytest

from zk0.data.sources import Source, check, fetch, find_shared
from zk0.errors import Zk0Error


def test_parse_reads_all_three_kinds():
    assert Source.parse("sim:touch") == Source("sim", "touch")
    assert Source.parse("local:/data/my arm") == Source("local", "/data/my arm")
    assert Source.parse("hf:lerobot/svla_so100") == Source("hf", "lerobot/svla_so100")


def test_parse_reads_revisions_and_parts():
    pinned = Source.parse("hf:ada/arm@v3.0#1/4")
    assert (pinned.name, pinned.revision, pinned.part) == ("ada/arm", "v3.0", (1, 4))
    assert pinned.slug == "ada--arm-1of4"
    assert str(pinned) == "hf:ada/arm@v3.0#1/4"
    assert Source.parse("sim:picklift#0/4").part == (0, 4)
    assert Source.parse("local:/data/arm #2").name == "/data/arm #2"
    assert Source.parse("local:/data/me@home").revision == ""


@pytest.mark.parametrize(
    "text", ["hf:ada/arm@", "hf:ada/arm@../x", "hf:../arm", "hf:ada/..", "sim:touch#4/4", "sim:"]
)
def test_what_is_no_source_is_refused(text: str):
    with pytest.raises(Zk0Error, match=r"dataset source|partition"):
        Source.parse(text)


def test_sources_that_share_episodes():
    whole, first, second = (Source.parse(f"sim:touch{part}") for part in ("", "#0/2", "#1/2"))
    assert whole.shares_with(first)
    assert first.shares_with(first)
    assert not first.shares_with(second)
    assert first.shares_with(Source.parse("sim:touch#1/3"))
    assert not whole.shares_with(Source.parse("sim:near"))
    assert Source.parse("hf:Ada/arm@v1").shares_with(Source.parse("hf:ada/Arm"))
    assert find_shared([first, second]) is None
    assert find_shared([first, second, whole]) == (first, whole)


def test_options_stand_apart_from_the_source():
    source = Source.parse("sim:touch").read_as("1/3", {"front": "camera1"}, 5)
    assert (source.part, source.cameras, source.fps) == ((1, 3), (("front", "camera1"),), 5)
    assert source.whole == Source("sim", "touch")
    with pytest.raises(Zk0Error, match="names its part already"):
        source.read_as("0/3", {}, 0)


def test_slug_never_holds_a_path():
    assert Source.parse("local:/home/ada/secret/arm").slug == "arm"
    assert Source.parse("hf:ada/arm").slug == "ada--arm"
    assert Source.parse("local:/").slug == "local"


@pytest.mark.parametrize(
    ("source", "message"),
    [("sim:tuch", "touch"), ("local:/nowhere", "no meta/info.json")],
)
def test_what_is_not_there_is_named_before_a_run(source: str, message: str):
    with pytest.raises(Zk0Error, match=message):
        check(Source.parse(source))


def test_hub_that_cannot_be_reached_is_one_clear_line(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(Zk0Error, match="hf:nobody/nothing: HF_HUB_OFFLINE is set") as error:
        fetch(Source("hf", "nobody/nothing"))
    assert "\n" not in str(error.value)


def test_local_folder_is_used_where_it_is(datasets: dict[str, Path]):
    assert fetch(Source("local", str(datasets["touch"]))) == datasets["touch"]
