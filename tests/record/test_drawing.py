from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest

from zk0.record.drawing import OpenLoopDrawing, draw_rollout
from zk0.record.videos import write_video

LIMITS = ([-110, -100, -97, -95, -157, 0], [110, 100, 97, 95, 157, 100])
BLUE, ORANGE, GREEN = (0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00), (0x00, 0x79, 0x5C)
GREY = np.full((128, 128, 3), 77, np.uint8)
RED = np.full((128, 128, 3), (200, 10, 10), np.uint8)


def amount(picture: np.ndarray, colour: tuple[int, int, int]) -> int:
    """Pixels of exactly this colour."""
    return int((picture == colour).all(2).sum())


def rollout(**changes: object) -> np.ndarray:
    arguments: dict = {
        "images": {"front": GREY, "wrist": RED},
        "instruction": "Touch the red cube.",
        "step": 17,
        "fps": 10,
        "targets": np.zeros(6),
        "state": np.zeros(6),
        "success": False,
        "limits": LIMITS,
    }
    return draw_rollout(**(arguments | changes))


@pytest.fixture
def stopwatch() -> Callable[[Callable], float]:
    """Processor seconds of a call, the least of ten."""
    import time

    def measure(call: Callable) -> float:
        seconds = []
        for _ in range(10):
            start = time.process_time()
            call()
            seconds.append(time.process_time() - start)
        return min(seconds)

    return measure


def test_cameras_stand_side_by_side_and_sizes_are_even():
    picture = rollout()
    assert picture.dtype == np.uint8
    assert picture.shape == (584, 776, 3)
    assert (picture[24:408, :384] == 77).all()
    assert (picture[24:408, 392:] == (200, 10, 10)).all()
    wide = rollout(images={"top": np.zeros((481, 641, 3), np.uint8), "wrist": RED})
    assert wide.shape[0] % 2 == wide.shape[1] % 2 == 0


def test_one_camera_stands_in_the_middle():
    picture = rollout(images={"observation.images.top": RED})
    assert picture.shape == (584, 776, 3)
    assert (picture[24:408, 196:580] == (200, 10, 10)).all()


def test_success_is_seen_at_once():
    before, after = rollout(), rollout(success=True)
    assert amount(before, GREEN) == 0
    assert amount(after, GREEN) > 8000
    assert (after[24:29, 300:400] == GREEN).all()  # a frame around the images


def test_the_bar_grows_with_the_state_and_the_triangle_moves_with_the_target():
    def lengths(value: float) -> int:
        return amount(rollout(state=[value, 0, 0, 0, 0, 0])[484:493, 100:265], BLUE)

    assert lengths(0) < lengths(20) < lengths(60) < lengths(110) == lengths(500)

    def place(value: float) -> float:
        rows = rollout(targets=[value, 0, 0, 0, 0, 0])[470:484, 100:270]
        return float(np.nonzero((rows == ORANGE).all(2))[1].mean())

    left, middle, right = (place(value) for value in (-110, 0, 110))
    assert middle == pytest.approx((left + right) / 2, abs=1)
    assert right - left > 120


def test_the_time_and_the_instruction_are_written():
    first, second = rollout(step=1), rollout(step=2)
    differing = np.argwhere((first != second).any(2))
    assert differing[:, 0].min() > 440  # below the images
    assert differing[:, 0].max() < 465
    assert (rollout(instruction="Pick it up.") != first)[410:440].any()


def test_numbers_that_are_none_do_not_stop_the_video():
    assert rollout(targets=[np.nan] * 6, state=[np.inf] * 6).shape == (584, 776, 3)


def test_a_long_instruction_is_cut():
    picture = rollout(instruction="Take the cube.\nThen go on: " + "and on " * 50, success=True)
    assert (picture[412:420, 770:] == 255).all()


def test_drawing_a_frame_is_quick(stopwatch: Callable[[Callable], float]):
    assert stopwatch(rollout) < 0.03  # it is 6 ms; machines differ


# --- open loop ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def episode() -> tuple[np.ndarray, np.ndarray]:
    """Recorded and predicted actions, (40, 6); the latter are 20 higher."""
    recorded = 40 * np.sin(np.arange(40)[:, None] / 8 + np.arange(6))
    return recorded, recorded + 20


@pytest.fixture(scope="module")
def open_loop(episode: tuple[np.ndarray, np.ndarray]) -> OpenLoopDrawing:
    return OpenLoopDrawing({"front": GREY, "wrist": RED}, "Touch it.", *episode, 10, 10)


def test_images_above_plots(open_loop: OpenLoopDrawing):
    picture = open_loop.draw({"front": RED, "wrist": GREY}, 3)
    assert picture.shape == (772, 776, 3)
    assert (picture[24:408, :384] == (200, 10, 10)).all()
    assert amount(picture[472:], BLUE) > 500
    assert amount(picture[472:], ORANGE) > 500


def cursors(picture: np.ndarray) -> list[int]:
    """Columns of the upper plots that are dark from top to bottom."""
    dark = (picture[500:600] < 60).all(2).mean(0)
    return np.flatnonzero(dark > 0.7).tolist()


def test_the_cursor_moves_through_every_plot(open_loop: OpenLoopDrawing):
    images = {"front": GREY, "wrist": RED}
    places = np.array([cursors(open_loop.draw(images, at)) for at in (0, 13, 26, 39)])
    assert places.shape == (4, 3)
    steps = np.diff(places, axis=0)
    assert steps.min() > 40
    assert np.ptp(steps) <= 2  # equal times, equal ways


def test_dots_stand_on_the_curves(open_loop: OpenLoopDrawing):
    images = {"front": GREY, "wrist": RED}
    picture = open_loop.draw(images, 20).astype(int)
    column = picture[490:606, cursors(open_loop.draw(images, 20))[0] + 2]
    heights = [np.flatnonzero((abs(column - c) < 30).all(1)).mean() for c in (BLUE, ORANGE)]
    assert heights[1] < heights[0] - 10  # predicted is higher


def test_a_frame_costs_little(open_loop: OpenLoopDrawing, stopwatch: Callable):
    assert stopwatch(lambda: open_loop.draw({"front": GREY, "wrist": RED}, 5)) < 0.03


def test_short_still_and_undefined_episodes():
    for frames in (1, 2):
        still = np.zeros((frames, 6))
        for predicted in (still, still + np.nan):
            made = OpenLoopDrawing({"top": GREY}, "Wait.", still, predicted, 50, 30)
            assert made.draw({"top": GREY}, frames - 1).shape == (772, 776, 3)


def test_other_shapes_are_refused():
    with pytest.raises(ValueError, match=r"actions are \(4, 7\); wanted \(frames, 6\)"):
        OpenLoopDrawing({"top": GREY}, "", np.zeros((4, 7)), np.zeros((4, 7)), 2, 10)


def test_a_video_of_it_decodes(open_loop: OpenLoopDrawing, tmp_path: Path):
    images = {"front": GREY, "wrist": RED}
    given = [open_loop.draw(images, at) for at in range(8)]
    write_video(tmp_path / "rollout_0.mp4", given, 10)
    with av.open(str(tmp_path / "rollout_0.mp4")) as container:
        shown = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(shown) == 8
    assert np.abs(shown[7].astype(int) - given[7]).mean() < 3
