"""The shell commands, run by bash on a copy of the checkout with stand-ins for Python and uv."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
FILES = ["scripts/setup.sh", "train-fl-simulation.sh", "pyproject.toml", "uv.lock"]
TOOLS = """
    bash env sh sed awk cksum cut dirname head tail sort grep ls ldconfig cat mkdir ln rm readlink
"""

GOOD_PYTHON = f'#!/bin/sh\nexec "{sys.executable}" "$@"\n'
# As pyenv's shim answers for a version that is installed but not chosen.
FAILING_SHIM = '#!/bin/sh\necho "pyenv: python3.12: command not found" >&2\nexit 127\n'
OLD_PYTHON = "#!/bin/sh\nexit 1\n"

# Makes an environment whose Python keeps its hands off the real one's packages.
UV = f"""\
#!/bin/sh
[ "$1" = --version ] && echo "uv 0.9.1 (stand-in)" && exit
echo "$@" >>"$UV_CALLS"
mkdir -p "$UV_PROJECT_ENVIRONMENT/bin"
cat >"$UV_PROJECT_ENVIRONMENT/bin/python" <<END
#!/bin/sh
case "\\$*" in
  *purelib*) echo "$UV_PROJECT_ENVIRONMENT" ;;
  *opengl*) echo "OpenGL: stand-in" ;;
  *zk0.simulate*) echo "simulating" ;;
  *) exec "{sys.executable}" "\\$@" ;;
esac
END
chmod +x "$UV_PROJECT_ENVIRONMENT/bin/python"
"""


@dataclass
class Machine:
    """A checkout in a folder with a space in its name, and a PATH with nothing by chance."""

    folder: Path

    @property
    def root(self) -> Path:
        return self.folder / "my checkout"

    @property
    def uv_calls(self) -> list[str]:
        path = self.folder / "uv-calls"
        return path.read_text().splitlines() if path.exists() else []

    def command(self, name: str, text: str) -> Path:
        path = self.folder / "bin" / name
        path.write_text(text)
        path.chmod(0o755)
        return path

    def run(self, script: str, *arguments: str, **changes: str) -> subprocess.CompletedProcess[str]:
        environment = {
            "PATH": str(self.folder / "bin"),
            "HOME": str(self.folder / "home"),
            "ZK0_HOME": str(self.folder / "cache"),
            "UV_CALLS": str(self.folder / "uv-calls"),
            **changes,
        }
        return subprocess.run(
            [str(self.root / script), *arguments],
            env=environment,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    machine = Machine(tmp_path)
    for name in FILES:
        (machine.root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(PROJECT / name, machine.root / name)
    (tmp_path / "bin").mkdir()
    (tmp_path / "home").mkdir()
    for tool in TOOLS.split():
        found = shutil.which(tool, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
        if found:
            (tmp_path / "bin" / tool).symlink_to(found)
    machine.command("chmod", f'#!/bin/sh\nexec {shutil.which("chmod")} "$@"\n')
    machine.command("uv", UV)
    return machine


@pytest.fixture
def with_python(machine: Machine) -> Machine:
    machine.command("python3", GOOD_PYTHON)
    return machine


def setup(machine: Machine, **changes: str) -> subprocess.CompletedProcess[str]:
    done = machine.run("scripts/setup.sh", **changes)
    assert done.returncode == 0, done.stderr
    return done


def one_line_error(done: subprocess.CompletedProcess[str], status: int) -> str:
    assert done.returncode == status
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: ")
    return done.stderr


def test_a_shim_that_runs_nothing_is_skipped(machine: Machine) -> None:
    machine.command("python3.12", FAILING_SHIM)
    good = machine.command("python3", GOOD_PYTHON)
    setup(machine)
    assert machine.uv_calls[0].endswith(f"--locked --extra sim --compile-bytecode --python {good}")


def test_pyenvs_versions_are_found_without_a_shim(machine: Machine) -> None:
    machine.command("python3", OLD_PYTHON)
    python = machine.folder / "pyenv" / "versions" / "3.12.9" / "bin" / "python"
    python.parent.mkdir(parents=True)
    shutil.copy(machine.command("good", GOOD_PYTHON), python)
    setup(machine, PYENV_ROOT=str(machine.folder / "pyenv"))
    assert machine.uv_calls[0].endswith(str(python))


def test_no_python_is_one_line_that_says_what_to_install(machine: Machine) -> None:
    machine.command("python3.12", FAILING_SHIM)
    machine.command("python3", OLD_PYTHON)
    message = one_line_error(machine.run("scripts/setup.sh"), 1)
    assert "Python 3.12 or 3.13" in message
    assert "pyenv install 3.12" in message
    assert not machine.uv_calls
    assert not (machine.root / ".venv").exists()


def test_the_named_python_must_work(with_python: Machine) -> None:
    done = with_python.run("scripts/setup.sh", ZK0_PYTHON="/nowhere/python")
    assert "ZK0_PYTHON=/nowhere/python" in one_line_error(done, 1)


def test_setup_touches_no_file_of_the_checkout(with_python: Machine) -> None:
    before = {name: (with_python.root / name).read_bytes() for name in FILES}
    setup(with_python)
    assert {name: (with_python.root / name).read_bytes() for name in FILES} == before
    made = {path.name for path in with_python.root.iterdir()} - {Path(n).parts[0] for n in FILES}
    assert made == {".venv"}


def test_the_environment_is_a_link_to_a_path_without_spaces(with_python: Machine) -> None:
    setup(with_python)
    assert " " in str(with_python.root)
    assert " " not in str((with_python.root / ".venv").readlink())


def test_a_cache_folder_with_a_space_is_refused(with_python: Machine) -> None:
    done = with_python.run("scripts/setup.sh", ZK0_HOME=str(with_python.folder / "my cache"))
    assert "set ZK0_HOME" in one_line_error(done, 1)


def test_connections_are_registered_in_flowers_home(with_python: Machine) -> None:
    setup(with_python)
    assert (with_python.folder / "home" / ".flwr" / "config.toml").exists()
    setup(with_python, FLWR_HOME=str(with_python.folder / "flower"))
    text = (with_python.folder / "flower" / "config.toml").read_text()
    assert 'default = "local-simulation"' in text


def test_flower_does_not_install_again_what_setup_installed(with_python: Machine) -> None:
    setup(with_python)
    line = (with_python.root / ".venv" / "zk0_flower.pth").read_text()
    assert "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION" in line
    assert line.count("\n") == 1, "Python reads each line of a .pth file by itself"


def test_the_second_call_has_nothing_to_install(with_python: Machine) -> None:
    setup(with_python)
    second = setup(with_python)
    assert second.stdout.startswith("OpenGL: stand-in")
    assert len(with_python.uv_calls) == 1


@pytest.mark.parametrize(("section", "installs"), [("tool.zk0.more", 1), ("tool.uv", 2)])
def test_only_what_the_environment_is_made_from_is_installed_again(
    with_python: Machine, section: str, installs: int
) -> None:
    setup(with_python)
    with (with_python.root / "pyproject.toml").open("a") as file:
        file.write(f"\n[{section}]\nkey = 1\n")
    setup(with_python)
    assert len(with_python.uv_calls) == installs


def test_a_moved_checkout_gets_its_own_environment(with_python: Machine) -> None:
    setup(with_python)
    old = (with_python.root / ".venv").readlink()
    moved = Machine(with_python.folder / "moved")
    moved.folder.mkdir()
    with_python.root.rename(moved.root)
    (moved.folder / "bin").symlink_to(with_python.folder / "bin")
    setup(moved)
    assert (moved.root / ".venv").readlink() != old
    assert not old.exists()


def test_a_folder_in_the_way_is_not_removed(with_python: Machine) -> None:
    (with_python.root / ".venv").mkdir()
    (with_python.root / ".venv" / "thesis.txt").touch()
    assert "is in the way" in one_line_error(with_python.run("scripts/setup.sh"), 1)
    assert (with_python.root / ".venv" / "thesis.txt").exists()


@pytest.mark.parametrize(
    "arguments", [["--unknown"], ["--tiny", "stray"], ["--federation"], ["--run-config"]]
)
def test_wrong_usage_runs_nothing(with_python: Machine, arguments: list[str]) -> None:
    one_line_error(with_python.run("train-fl-simulation.sh", *arguments), 2)
    assert not with_python.uv_calls


def test_help_needs_no_setup(with_python: Machine) -> None:
    done = with_python.run("train-fl-simulation.sh", "--help")
    assert done.returncode == 0
    for option in ("--tiny", "--federation NAME", "--run-config", "--help"):
        assert option in done.stdout
    assert not with_python.uv_calls


def test_training_sets_up_and_then_simulates(with_python: Machine) -> None:
    done = with_python.run("train-fl-simulation.sh", "--tiny", "--run-config", "seed=1")
    assert done.returncode == 0, done.stderr
    assert done.stdout.rstrip().endswith("simulating")
