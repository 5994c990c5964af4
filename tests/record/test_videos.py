import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from zk0.errors import Zk0Error
from zk0.record.videos import VideoFacts, load_facts, save_facts, smoothness, write_video

FULL = Path("/dev/full")  # every write to it fails as on a full disk


def pictures(count: int, height: int = 48, width: int = 64) -> list[np.ndarray]:
    """A gradient, and a bright square that moves over it."""
    y, x = np.mgrid[:height, :width]
    still = np.stack([40 + x, 60 + y, 120 + 0 * x], 2).astype(np.uint8)
    moving = [still.copy() for _ in range(count)]
    for number, picture in enumerate(moving):
        picture[8:24, 2 * number : 2 * number + 16] = (230, 160, 20)
    return moving


def decoded(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


FACTS = VideoFacts(
    who="client_3",
    round=2,
    kind="rollout",
    task="touch",
    instruction="Touch the red cube.",
    seed=7,
    episode=None,
    success=True,
    frames=30,
    fps=10,
    seconds=3.0,
    smoothness=12.5,
    policy_loss=None,
    action_error=None,
)


# --- writing --------------------------------------------------------------------------------


@pytest.mark.parametrize("fps", [10, 30])
def test_what_is_written_is_what_is_decoded(tmp_path: Path, fps: int):
    path, given_ = tmp_path / "new" / "rollout_0.mp4", pictures(20)
    write_video(path, iter(given_), fps)
    shown = decoded(path)
    for before, after in zip(given_, shown, strict=True):
        assert np.abs(after.astype(int) - before).mean() < 4
    with av.open(str(path)) as container:  # a stream's properties are the open container's
        stream = container.streams.video[0]
        assert (stream.codec.name, stream.pix_fmt, stream.average_rate) == ("h264", "yuv420p", fps)
        assert stream.frames == 20
        assert float(stream.duration * stream.time_base) == pytest.approx(20 / fps)
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("colour", [(255, 0, 0), (0, 255, 0), (0, 114, 178), (128, 128, 128)])
def test_colours_stay(tmp_path: Path, colour: tuple[int, int, int]):
    path = tmp_path / "a.mp4"
    write_video(path, [np.full((32, 32, 3), colour, np.uint8)] * 2, 5)
    assert decoded(path)[1][16, 16] == pytest.approx(colour, abs=4)


def test_odd_sizes_become_even(tmp_path: Path):
    path, given_ = tmp_path / "a.mp4", pictures(3, 47, 63)
    write_video(path, given_, 10)
    shown = decoded(path)
    assert shown[0].shape == (48, 64, 3)
    assert np.abs(shown[2][:47, :63].astype(int) - given_[2]).mean() < 4
    assert np.abs(shown[2][47, :63].astype(int) - given_[2][46]).mean() < 6


def test_the_index_stands_in_front_of_the_pictures(tmp_path: Path):
    write_video(tmp_path / "a.mp4", pictures(5), 10)
    content = (tmp_path / "a.mp4").read_bytes()
    assert 0 < content.index(b"moov") < content.index(b"mdat")


def test_the_same_frames_give_the_same_bytes(tmp_path: Path):
    noise = list(np.random.default_rng(0).integers(0, 256, (20, 64, 64, 3), np.uint8))
    contents = set()
    for _ in range(6):
        write_video(tmp_path / "a.mp4", noise, 10)
        contents.add((tmp_path / "a.mp4").read_bytes())
    assert len(contents) == 1


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        ([], "no frames for"),
        ([np.zeros((8, 8), np.uint8)], r"frame 0: \(8, 8\) uint8; wanted"),
        ([np.zeros((8, 8, 4), np.uint8)], r"frame 0: \(8, 8, 4\)"),
        ([np.zeros((8, 8, 3), np.float32)], "frame 0: .* float32"),
        ([*pictures(3), *pictures(1, 32, 64)], r"frame 3: \(32, 64, 3\); the first one is"),
    ],
)
def test_frames_that_are_no_video(tmp_path: Path, frames: list[np.ndarray], message: str):
    with pytest.raises(ValueError, match=message):
        write_video(tmp_path / "a.mp4", frames, 10)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("before", [False, True], ids=["new", "over another"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError("camera"), RuntimeError("policy")])
def test_an_interrupted_video_is_not_left_behind(
    tmp_path: Path, error: BaseException | type[BaseException], before: bool
):
    path = tmp_path / "a.mp4"
    if before:
        write_video(path, pictures(2), 10)
    old = path.read_bytes() if before else None

    def interrupted() -> Iterator[np.ndarray]:
        yield from pictures(12)
        assert (tmp_path / ".a.mp4.partial").exists()
        raise error

    with pytest.raises(error if isinstance(error, type) else type(error)) as raised:
        write_video(path, interrupted(), 10)
    assert not isinstance(raised.value, Zk0Error)  # of the frames, not of the file
    assert [each.read_bytes() for each in tmp_path.iterdir()] == ([old] if before else [])


@pytest.mark.skipif(not FULL.is_char_device(), reason="no device that is always full")
@pytest.mark.parametrize("count", [2, 400], ids=["at the end", "on the way"])
def test_a_full_disk_is_told_and_nothing_stays(tmp_path: Path, count: int):
    (tmp_path / ".a.mp4.partial").symlink_to(FULL)
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    with pytest.raises(Zk0Error, match=r"/a\.mp4 cannot be written: No space left on device"):
        write_video(tmp_path / "a.mp4", (np.roll(noise, n, 0) for n in range(count)), 10)
    assert not list(tmp_path.iterdir())


# --- facts ----------------------------------------------------------------------------------

NUMBERS = st.floats(0, allow_nan=False, allow_infinity=False)
COUNTS = st.integers(1, 10**9)


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    facts=st.builds(
        VideoFacts,
        who=st.just("server") | st.integers(0, 999).map("client_{}".format),
        round=st.integers(0, 10**6),
        kind=st.sampled_from(["rollout", "open-loop"]),
        task=st.text(),
        instruction=st.text(),
        seed=st.none() | st.integers(),
        episode=st.none() | st.integers(),
        success=st.none() | st.booleans(),
        frames=COUNTS,
        fps=COUNTS,
        seconds=NUMBERS,
        smoothness=NUMBERS,
        policy_loss=st.none() | st.floats(allow_nan=False, allow_infinity=False),
        action_error=st.none() | st.dictionaries(st.text(), NUMBERS),
    )
)
def test_facts_come_back_as_they_were(tmp_path: Path, facts: VideoFacts):
    save_facts(tmp_path / "rollout_0.mp4", facts)
    assert load_facts(tmp_path / "rollout_0.mp4") == facts
    assert [path.name for path in tmp_path.iterdir()] == ["rollout_0.json"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "dance"}, "kind: Input should be 'rollout' or 'open-loop'"),
        ({"who": "nobody"}, "who: "),
        ({"success": "yes"}, "success: "),
        ({"frames": 0}, "frames: "),
        ({"round": 1.5}, "round: "),
        ({"smoothness": float("nan")}, "smoothness: "),
        ({"action_error": {"gripper": "large"}}, "action_error.gripper: "),
        ({"more": 1}, "more: "),
    ],
)
def test_wrong_facts_are_refused(tmp_path: Path, change: dict, message: str):
    (tmp_path / "a.json").write_text(json.dumps(asdict(FACTS) | change))
    with pytest.raises(Zk0Error, match=message) as error:
        load_facts(tmp_path / "a.mp4")
    assert str(error.value).startswith(f"{tmp_path}/a.json does not describe a video: ")
    assert "\n" not in str(error.value)


def test_facts_that_are_missing_or_cut_off(tmp_path: Path):
    with pytest.raises(Zk0Error, match=r"a\.json cannot be read: No such file"):
        load_facts(tmp_path / "a.mp4")
    whole = json.dumps(asdict(FACTS))
    (tmp_path / "a.json").write_text(whole[:40])
    with pytest.raises(Zk0Error, match="does not describe a video: Invalid JSON"):
        load_facts(tmp_path / "a.mp4")
    content = asdict(FACTS)
    del content["success"]
    (tmp_path / "a.json").write_text(json.dumps(content))
    with pytest.raises(Zk0Error, match="success: Field required"):
        load_facts(tmp_path / "a.mp4")


# --- smoothness -----------------------------------------------------------------------------


def test_smoothness_of_motions_known_in_advance():
    time = np.arange(1001) / 100  # ten periods of a second, 100 frames each
    arm = np.zeros((1001, 6))
    arm[:, 5] = np.random.default_rng(0).uniform(0, 100, 1001)
    assert smoothness(arm, 100) == 0.0  # the gripper does not count
    arm[:, :5] = time[:, None] * [1, -2, 3, 50, 0]
    assert smoothness(arm, 100) == pytest.approx(0.0, abs=1e-6)  # steady speed
    arm[:, :5] = 0.5 * 8 * time[:, None] ** 2
    assert smoothness(arm, 100) == pytest.approx(8.0)  # steady acceleration
    # A sine of 10 degrees at 1 Hz in one joint of five: 10 (2 pi)^2 / sqrt(2 * 5), less what the
    # second difference takes from it, (sin(x) / x)^2 at x = pi / 100.
    arm[:, :5] = 0
    arm[:, 1] = 10 * np.sin(2 * np.pi * time)
    assert smoothness(arm, 100) == pytest.approx(124.7995, abs=0.1)


def test_smoothness_of_few_frames():
    assert smoothness(np.zeros((0, 6)), 10) == 0.0
    assert smoothness([[0] * 6, [90] * 6], 10) == 0.0
    assert smoothness([[0] * 6, [0] * 6, [1] * 6], 10) == pytest.approx(100.0)
