"""What the documentation says is there: files, commands, options, keys."""

import importlib.util
import re
import shlex
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import click
import pytest
import typer

from tests.conftest import PROJECT
from zk0.cli import app
from zk0.config import parse_overrides

PAGES = [PROJECT / "README.md", *sorted((PROJECT / "docs").glob("*.md"))]
BLOCK = re.compile(r"```bash\n(.*?)```", re.DOTALL)


def commands(program: str) -> list[tuple[str, list[str]]]:
    """Each line of a page's shell blocks that calls `program`: page and words."""
    found = []
    for page in PAGES:
        for block in BLOCK.findall(page.read_text()):
            for line in block.replace("\\\n", " ").splitlines():
                words = shlex.split(line, comments=True)
                if words and words[0] == program:
                    found.append((page.name, words[1:]))
    return found


@pytest.mark.parametrize(("page", "words"), commands("zk0"))
def test_zk0_commands_are_understood(page: str, words: list[str]):
    """Parsed as if typed, down to every option and argument; nothing is run."""
    command = typer.main.get_command(app)
    context = click.Context(command)
    while isinstance(command, click.Group):
        name, command, words = command.resolve_command(context, words)
        assert command is not None, name
    with command.make_context("zk0", list(words)) as parsed:
        settings = parsed.params.get("run_config") or []
    parse_overrides(settings)


@pytest.mark.parametrize(
    "text",
    [
        word
        for program in ("./train-fl-simulation.sh", "flwr")
        for _, words in commands(program)
        for option, word in pairwise(words)
        if option == "--run-config" and word != "..."
    ],
)
def test_settings_in_examples_are_known_keys(text: str):
    assert parse_overrides([text])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page: Path):
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", page.read_text()):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_are_named_exist(page: Path):
    names = r"(?<![/\w])(?:benchmarks|scripts|examples|src)/[\w/.-]+\w"
    for name in re.findall(names, page.read_text()):
        assert (PROJECT / name).exists(), name


def test_the_reference_of_settings_is_up_to_date():
    path = PROJECT / "scripts" / "make_reference.py"
    spec = importlib.util.spec_from_file_location("make_reference", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.PAGE.read_text() == module.make_page()


def test_the_site_builds_without_a_warning(tmp_path: Path):
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Quick start" in (tmp_path / "index.html").read_text()
    assert "proximal-mu" in (tmp_path / "configuration" / "index.html").read_text()
