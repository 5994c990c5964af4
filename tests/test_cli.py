from pathlib import Path

from tests.conftest import EPISODES, PROJECT


def test_config_check_shows_what_a_run_would_use(zk0):
    status, out, _ = zk0("config", "check", "--app", str(PROJECT), "-c", "local-steps=7")
    assert status == 0
    assert any(line.split() == ["local-steps", "7"] for line in out.splitlines())
    assert any(line.split() == ["server", "sim:far"] for line in out.splitlines())


def test_config_check_names_the_wrong_key_and_the_nearest(zk0):
    status, _, err = zk0("config", "check", "--app", str(PROJECT), "-c", "local-step=7")
    assert status == 1
    assert err == "error: local-step is not a known key. Did you mean local-steps?\n"


def test_data_list_names_every_dataset(zk0):
    status, out, _ = zk0("data", "list")
    assert status == 0
    for name in ("touch", "picklift", "push", "pull", "near", "far"):
        assert name in out


def test_data_show_counts_and_draws(zk0, datasets: dict[str, Path], tmp_path: Path):
    from PIL import Image

    png = tmp_path / "sheet.png"
    status, out, _ = zk0("data", "show", f"local:{datasets['touch']}", "--png", str(png))
    assert status == 0
    assert f"{EPISODES} episodes, 10 fps, robot so101_follower" in out
    assert '"Touch the red cube."' in out
    assert "observation.images.wrist" in out
    with Image.open(png) as image:
        assert image.width > 400


def test_data_show_of_what_is_not_there(zk0):
    status, _, err = zk0("data", "show", "local:/nowhere")
    assert status == 1
    assert err.startswith("error: /nowhere is not a LeRobotDataset")
    assert err.count("\n") == 1
