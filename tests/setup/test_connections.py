"""The user's Flower configuration belongs to the user: only zk0's own entries may change."""

import tomllib
from pathlib import Path

import pytest

from zk0 import connections
from zk0.errors import Zk0Error

USERS = """\
# My connections.
[superlink]
default = "lab"   # the big one

[superlink.lab]
address = "10.0.0.1:9093"  # TLS since May
root-certificates = "ca.pem"

# the old laptop
[superlink.laptop]
address = ":local:"
options.num-supernodes = 2
"""

STOCK = '[superlink]\ndefault = "local"\n\n[superlink.local]\naddress = ":local:"\n'


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FLWR_HOME", str(tmp_path / "flower"))
    return connections.config_path()


def project(folder: Path, clients: int) -> Path:
    entries = ", ".join(f'{{ source = "sim:{n}" }}' for n in range(clients))
    folder.mkdir(exist_ok=True)
    (folder / "pyproject.toml").write_text(f"[tool.zk0.datasets]\nclients = [{entries}]\n")
    return folder


def write(config: Path, text: str) -> None:
    config.parent.mkdir(parents=True, exist_ok=True)
    config.write_bytes(text.encode())


def superlink(config: Path) -> dict[str, dict[str, object]]:
    return tomllib.loads(config.read_text())["superlink"]


def test_every_entry_and_comment_of_the_user_survives(config: Path, tmp_path: Path) -> None:
    write(config, USERS)
    assert connections.register(project(tmp_path / "app", 4))
    assert config.read_text().startswith(USERS)
    assert superlink(config)["default"] == "lab"


def test_registering_again_changes_no_byte(config: Path, tmp_path: Path) -> None:
    write(config, USERS)
    app = project(tmp_path / "app", 4)
    connections.register(app)
    before = config.read_bytes(), config.stat().st_mtime_ns
    assert not connections.register(app)
    assert (config.read_bytes(), config.stat().st_mtime_ns) == before


def test_supernodes_follow_the_clients_and_nothing_else_moves(config: Path, tmp_path: Path) -> None:
    write(config, USERS)
    connections.register(project(tmp_path / "app", 4))
    four = config.read_text()
    connections.register(project(tmp_path / "app", 7))
    assert config.read_text() == four.replace("num-supernodes = 4", "num-supernodes = 7")
    for name in connections.GPUS_PER_CLIENT:
        assert superlink(config)[name]["options"]["num-supernodes"] == 7  # type: ignore[index]


def test_a_new_configuration_keeps_flowers_stock_connections(config: Path, tmp_path: Path) -> None:
    connections.register(project(tmp_path / "app", 3))
    assert superlink(config)["default"] == connections.CPU
    assert superlink(config)["local"] == {"address": ":local:"}


def test_gpu_shares(config: Path, tmp_path: Path) -> None:
    connections.register(project(tmp_path / "app", 3))
    shares = {
        name: table["options"]["backend"]["client-resources"]["num-gpus"]  # type: ignore[index]
        for name, table in connections.read_connections().items()
        if name in connections.GPUS_PER_CLIENT
    }
    assert shares == {
        "local-simulation": 0.0,
        "local-simulation-gpu": 0.25,
        "local-simulation-serialized-gpu": 1.0,
    }


@pytest.mark.parametrize(
    ("text", "default"),
    [
        ("", "local-simulation"),
        (STOCK, "local-simulation"),
        (STOCK.replace("\n", "\r\n"), "local-simulation"),
        ('[superlink.local]\naddress = ":local:"', "local-simulation"),
        ('[superlink]\n# none yet\n[superlink.x]\naddress = "a:1"\n', "local-simulation"),
        (STOCK.replace('"local"', '"other"'), "other"),
        (STOCK + "options.num-supernodes = 3\n", "local"),
    ],
)
def test_only_flowers_stock_default_gives_way(text: str, default: str) -> None:
    edited = connections.edit(text, 2, Path("config.toml"))
    assert tomllib.loads(edited)["superlink"]["default"] == default
    assert connections.edit(edited, 2, Path("config.toml")) == edited


def test_what_flowers_own_writer_makes_of_our_entries_counts_as_ours() -> None:
    rewritten = "\n".join(
        line
        for line in connections.edit(STOCK, 2, Path("config.toml")).splitlines()
        if not line.startswith("#")
    )
    assert connections.edit(rewritten, 2, Path("config.toml")) == rewritten


def test_a_comment_above_the_next_table_is_not_ours() -> None:
    text = (
        '[superlink.local-simulation]\naddress = "x"\n\n# mine\n[superlink.mine]\naddress = "y"\n'
    )
    edited = connections.edit(text, 2, Path("config.toml"))
    assert '\n\n# mine\n[superlink.mine]\naddress = "y"\n' in edited
    assert edited.count("[superlink.local-simulation]") == 1


def test_a_spelling_that_cannot_be_edited_is_refused(config: Path, tmp_path: Path) -> None:
    write(config, 'superlink = { local-simulation = { address = "x" } }\n')
    before = config.read_bytes()
    with pytest.raises(Zk0Error, match="cannot be edited safely"):
        connections.register(project(tmp_path / "app", 2))
    assert config.read_bytes() == before


def test_a_broken_configuration_is_named_and_left_alone(config: Path, tmp_path: Path) -> None:
    write(config, "[superlink\n")
    with pytest.raises(Zk0Error, match=r"config\.toml: is not valid TOML"):
        connections.register(project(tmp_path / "app", 2))
    assert config.read_text() == "[superlink\n"


def test_a_linked_configuration_stays_a_link_and_keeps_its_mode(
    config: Path, tmp_path: Path
) -> None:
    write(tmp_path / "dotfiles" / "flower.toml", USERS)
    (tmp_path / "dotfiles" / "flower.toml").chmod(0o600)
    config.parent.mkdir()
    config.symlink_to(tmp_path / "dotfiles" / "flower.toml")
    connections.register(project(tmp_path / "app", 2))
    assert config.is_symlink()
    assert config.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("text", ["", "[tool.zk0.datasets]\nclients = []\n"])
def test_a_project_without_clients_is_an_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "pyproject.toml").write_text(text)
    with pytest.raises(Zk0Error, match="at least one client"):
        connections.number_of_clients(tmp_path)
