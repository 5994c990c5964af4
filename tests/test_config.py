from pathlib import Path

import pytest

from tests.conftest import PROJECT
from zk0.config import (
    Logging,
    check,
    list_keys,
    load,
    load_logging,
    parse_datasets,
    parse_overrides,
    read_pyproject,
)
from zk0.errors import Zk0Error


def test_shipped_configuration_is_valid_and_every_key_is_commented():
    config, datasets = check(PROJECT, [])
    assert config.num_server_rounds == 100
    assert [dataset.source for dataset in datasets.clients] == [
        "sim:touch",
        "sim:picklift",
        "sim:push",
        "sim:pull",
    ]
    text = (PROJECT / "pyproject.toml").read_text()
    for key in list_keys():
        line = next(line for line in text.splitlines() if line.startswith(f"{key} = "))
        assert "# " in line, f"{key} has no comment"


def test_overrides_win():
    config, _ = check(PROJECT, ["num-server-rounds=3 local-steps=20", "proximal-mu=1"])
    assert (config.num_server_rounds, config.local_steps, config.proximal_mu) == (3, 20, 1.0)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "num-server-round=3",
            "num-server-round is not a known key. Did you mean num-server-rounds?",
        ),
        (
            "local-steps=-3",
            "local-steps = -3 is not valid: it has to be a whole number of at least 0.",
        ),
        ("local-steps='a'", "local-steps = 'a' is not valid"),
        ("local-steps=1.5", "local-steps = 1.5 is not valid"),
        ("seed=true", "seed = True is not valid"),
        ("initial-lr=nan", "initial-lr = nan is not valid"),
        ("initial-lr=inf", "initial-lr = inf is not valid"),
        ("fraction-train=0.0", "fraction-train = 0.0 is not valid: it has to be a number above 0"),
        ("device='gpu'", 'it has to be one of "auto", "cpu", "cuda".'),
        ("use-wandb=1", "it has to be true or false"),
        ("num-server-rounds", '"num-server-rounds" is not KEY=VALUE'),
        ("num-server-rounds = 3", '"num-server-rounds" is not KEY=VALUE'),
        ("model-name=embedded", "cannot be read"),
        ("min-train-nodes=3", "min-train-nodes = 3 is more than min-available-nodes = 2"),
        ("min-available-nodes=5", "lists 4 clients"),
        ("nowhere.toml", "cannot be read"),
    ],
)
def test_wrong_run_config_is_one_line_that_names_key_and_range(override: str, message: str):
    with pytest.raises(Zk0Error) as error:
        check(PROJECT, [override])
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_overrides_from_a_file(tmp_path: Path):
    file = tmp_path / "sweep.toml"
    file.write_text("proximal-mu = 0.5\n")
    assert parse_overrides([str(file)]) == {"proximal-mu": 0.5}


@pytest.mark.parametrize(
    ("clients", "message"),
    [
        (["sim:touch", "sim:touch"], "sim:touch more than once"),
        (["sim:far"], "sim:far more than once"),
        (["touch"], '"touch" is none of'),
        (["hf:nobody"], "hf:owner/name"),
        ([], "clients"),
    ],
)
def test_wrong_datasets_are_refused(clients: list[str], message: str):
    entries = {"clients": [{"source": s} for s in clients], "server": [{"source": "sim:far"}]}
    with pytest.raises(Zk0Error, match=message):
        parse_datasets(entries)


def test_same_folder_by_two_spellings_is_the_same_dataset(tmp_path: Path):
    entries = {
        "clients": [{"source": f"local:{tmp_path}/a"}],
        "server": [{"source": f"local:{tmp_path}/b/../a"}],
    }
    with pytest.raises(Zk0Error, match="more than once"):
        parse_datasets(entries)


@pytest.mark.parametrize("folders", [("/alice/arm", "/bob/arm"), ("/alice/composite",)])
def test_what_the_server_evaluates_on_has_names_of_its_own(folders: tuple[str, ...]):
    """Else one's losses would take the place of another's in the record."""
    server = [{"source": f"local:{folder}"} for folder in folders]
    with pytest.raises(Zk0Error, match=rf"local:{folders[-1]}.*rename its folder"):
        parse_datasets({"clients": [{"source": "sim:touch"}], "server": server})
    clients = [{"source": "local:/alice/arm"}, {"source": "local:/bob/arm"}]
    parse_datasets({"clients": clients, "server": [{"source": "local:/carol/arm"}]})


def test_parts_of_a_dataset_may_be_different_clients():
    entries = {
        "clients": [
            {"source": "sim:touch#0/2"},
            {"source": "sim:touch", "partition": "1/2", "cameras": {"front": "top"}, "fps": 5},
        ],
        "server": [{"source": "sim:far"}],
    }
    first, second = (dataset.parsed for dataset in parse_datasets(entries).clients)
    assert (first.part, second.part) == ((0, 2), (1, 2))
    assert (dict(second.cameras), second.fps) == ({"front": "top"}, 5)
    entries["server"] = [{"source": "sim:touch"}]
    with pytest.raises(Zk0Error, match=r"sim:touch more than once.*its own partition"):
        parse_datasets(entries)


def test_a_named_federation_takes_the_place_of_the_apps_datasets():
    config, datasets = load(PROJECT, {"datasets": "so100-community"})
    assert config.datasets == "so100-community"
    assert len(datasets.clients) == 12
    assert datasets.server[0].source == "hf:Hupy440/Two_Cubes_and_Two_Buckets_v2"
    with pytest.raises(Zk0Error, match="so100-community"):
        load(PROJECT, {"datasets": "so100-comunity"})


def test_unknown_dataset_key_names_the_nearest():
    with pytest.raises(Zk0Error, match="Did you mean source"):
        parse_datasets({"clients": [{"sorce": "sim:touch"}], "server": [{"source": "sim:far"}]})


@pytest.mark.parametrize("content", [None, "[tool", "[project]\nname = 'x'\n"])
def test_folder_without_a_zk0_app_is_refused(tmp_path: Path, content: str | None):
    if content is not None:
        (tmp_path / "pyproject.toml").write_text(content)
    with pytest.raises(Zk0Error, match=r"pyproject\.toml"):
        read_pyproject(tmp_path)


def test_log_levels_are_the_apps(tmp_path: Path):
    assert load_logging(PROJECT) == Logging(terminal="INFO", file="DEBUG")
    text = (PROJECT / "pyproject.toml").read_text()
    (tmp_path / "pyproject.toml").write_text(text.replace('terminal = "INFO"', 'terminal = "LOUD"'))
    with pytest.raises(Zk0Error, match=r"\[tool.zk0.logging\]: terminal = 'LOUD' is not valid"):
        load_logging(tmp_path)


def test_rollouts_ride_on_evaluations():
    rounds = "num-server-rounds=11"
    for settings, evaluated, thorough in (
        ("eval-frequency=1 rollout-frequency=4", list(range(12)), [4, 8, 11]),
        ("eval-frequency=5 rollout-frequency=5", [0, 5, 10, 11], [5, 10, 11]),
        ("eval-frequency=3 rollout-frequency=4", [0, 3, 6, 9, 11], [6, 9, 11]),
        ("eval-frequency=4 rollout-frequency=0", [0, 4, 8, 11], [11]),
    ):
        config, _ = check(PROJECT, [rounds, settings])
        assert [n for n in range(12) if config.is_evaluated(n)] == evaluated
        assert [n for n in range(12) if config.is_thorough(n)] == thorough
