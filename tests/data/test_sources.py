from pathlib import Path

import pytest

from zk0.data.sources import Source, check, fetch
from zk0.errors import Zk0Error


def test_parse_reads_all_three_kinds():
    assert Source.parse("sim:touch") == Source("sim", "touch")
    assert Source.parse("local:/data/my arm") == Source("local", "/data/my arm")
    assert Source.parse("hf:lerobot/svla_so100") == Source("hf", "lerobot/svla_so100")


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
    with pytest.raises(Zk0Error, match=r"hf:nobody/nothing cannot be had from the Hub") as error:
        fetch(Source("hf", "nobody/nothing"))
    assert "\n" not in str(error.value)


def test_local_folder_is_used_where_it_is(datasets: dict[str, Path]):
    assert fetch(Source("local", str(datasets["touch"]))) == datasets["touch"]
