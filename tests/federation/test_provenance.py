import shutil
from pathlib import Path

import pytest

from tests.conftest import PROJECT
from zk0.errors import Zk0Error
from zk0.federation.provenance import check_code


@pytest.fixture
def app(tmp_path: Path) -> Path:
    shutil.copytree(PROJECT / "src", tmp_path / "src")
    return tmp_path


@pytest.mark.parametrize("name", ["node.py", "learning/training.py"])
def test_other_code_is_refused(app: Path, name: str):
    check_code(app)  # as it is, it passes
    changed = app / "src" / "zk0" / name
    changed.write_text(changed.read_text() + "\n")
    with pytest.raises(Zk0Error, match=f"its {changed.name} is not the one submitted"):
        check_code(app)


def test_module_that_is_not_installed_is_refused(app: Path):
    (app / "src" / "zk0" / "new.py").write_text("")
    with pytest.raises(Zk0Error, match=r"new\.py"):
        check_code(app)
