"""What commands write for other programs."""

import json
from pathlib import Path

import pytest

from zk0.errors import Zk0Error
from zk0.files import write_json


def test_json_goes_through_a_link_and_leaves_it(tmp_path: Path):
    """As /dev/stdout is one."""
    (tmp_path / "link").symlink_to(tmp_path / "target")
    write_json(tmp_path / "link", {"loss": 0.5})
    assert (tmp_path / "link").is_symlink()
    assert json.loads((tmp_path / "target").read_text()) == {"loss": 0.5}


def test_json_that_cannot_be_written_is_one_line(tmp_path: Path):
    with pytest.raises(Zk0Error, match=r"--json: .*missing/x\.json cannot be written"):
        write_json(tmp_path / "missing" / "x.json", {})
