"""Videos of what a policy does, each with a JSON of facts beside it: whatever is concluded from a
video comes from there, never from its pixels.
"""

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from zk0.errors import Zk0Error, cannot_write

Kind = Literal["rollout", "open-loop"]

VIDEOS = "rollout_*.mp4"
# The same frames are to give the same bytes: one thread, whatever the number of cores, and without
# x264's "mbtree", which reads memory that was never written where the CPU has AVX-512.
ENCODER = {"preset": "superfast", "crf": "22", "threads": "1", "x264-params": "mbtree=0"}
CONTAINER = {"movflags": "+faststart", "fflags": "+bitexact"}
# How players get from YUV to RGB, in FFmpeg's numbers: as PyAV went from RGB to YUV.
_BT601, _BT709, _LIMITED = 6, 1, 1


@dataclass(frozen=True)
class VideoFacts:
    """What one video shows."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(
        strict=True, extra="forbid", allow_inf_nan=False
    )

    who: Annotated[str, Field(pattern=r"^(server|client_\d+)$")]  # whose model acts
    round: Annotated[int, Field(ge=0)]
    kind: Kind  # "rollout": closed loop in the simulator; "open-loop": recorded data
    task: str
    instruction: str
    seed: int | None  # that determines a simulated episode
    episode: int | None  # of a recorded dataset
    success: bool | None  # None where only a simulator could tell
    frames: Annotated[int, Field(ge=1)]  # pictures in the video
    fps: Annotated[int, Field(ge=1)]
    seconds: Annotated[float, Field(ge=0)]  # simulated or recorded, until success or the end
    smoothness: Annotated[float, Field(ge=0)]  # of the policy's actions; see `smoothness`
    policy_loss: float | None
    action_error: dict[str, float] | None  # mean absolute, by joint: degrees, gripper percent


def write_video(path: Path, frames: Iterable[NDArray[np.uint8]], fps: int) -> None:
    """Write `frames`, each (height, width, 3) RGB, as an H.264 mp4: whole or not at all.

    Odd sizes grow by a row or column, a copy of the last. The same frames give the same file.
    Raises ValueError where there is no frame or they differ in shape, `Zk0Error` where there is
    no room; whatever `frames` raises is passed on.
    """
    if fps < 1:
        raise ValueError(f"fps = {fps}; it has to be 1 or more")
    frames = iter(frames)
    first = next(frames, None)
    if first is None:
        raise ValueError(f"no frames for {path}")
    _check(first, first.shape, 0)
    with _whole(path) as partial, _container(partial, path) as container:
        stream = _stream(container, first.shape, fps)
        for number, pixels in enumerate(chain([first], frames)):
            _check(pixels, first.shape, number)
            with _written(path):
                container.mux(stream.encode(_frame(pixels, number, fps)))
        with _written(path):
            container.mux(stream.encode())


def save_facts(video: Path, facts: VideoFacts) -> None:
    """Write the JSON beside `video` (an mp4), whole or not at all."""
    text = json.dumps(asdict(facts), indent=1, allow_nan=False)
    path = facts_path(video)
    with _whole(path) as partial, _written(path):
        partial.write_text(text, encoding="utf-8")


def load_facts(video: Path) -> VideoFacts:
    """The facts beside `video` (an mp4); raises `Zk0Error` where they are missing or wrong."""
    path = facts_path(video)
    try:
        return TypeAdapter(VideoFacts).validate_json(path.read_bytes())
    except OSError as error:
        raise Zk0Error(f"{path} cannot be read: {error.strerror}.") from error
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(str(part) for part in problem["loc"])
        said = f"{where}: {problem['msg']}" if where else problem["msg"]
        raise Zk0Error(f"{path} does not describe a video: {said}. Make it again.") from None


def facts_path(video: Path) -> Path:
    return video.with_suffix(".json")


def smoothness(actions: ArrayLike, fps: float) -> float:
    """Root mean square acceleration, degrees / s^2, of `actions` (frames, 6; the gripper last).

    The mean is over frames and the five arm joints, of the second difference times fps^2; 0.0 for
    fewer than three frames.
    """
    arm = np.asarray(actions, np.float64)[:, :5]
    if len(arm) < 3:
        return 0.0
    acceleration = np.diff(arm, n=2, axis=0) * fps**2
    return float(np.sqrt(np.mean(acceleration**2)))


@contextmanager
def _container(partial: Path, path: Path) -> Iterator[Any]:
    """An mp4 in `partial`; only what concerns the file becomes a `Zk0Error`, naming `path`."""
    import av

    with _written(path):
        container = av.open(str(partial), "w", format="mp4", options=CONTAINER)
    try:
        yield container
    except BaseException:
        with suppress(OSError):  # what was raised first says more
            container.close()
        raise
    with _written(path):
        container.close()  # moves the index to the front, so that players can start at once


def _stream(container: Any, shape: tuple[int, ...], fps: int) -> Any:
    stream = container.add_stream("libx264", rate=fps, options=ENCODER)
    stream.height, stream.width = (size + size % 2 for size in shape[:2])
    stream.pix_fmt = "yuv420p"
    stream.gop_size = 2 * fps  # players can jump to every other second
    context = stream.codec_context
    context.colorspace, context.color_range = _BT601, _LIMITED
    context.color_primaries = context.color_trc = _BT709
    return stream


def _check(pixels: NDArray[np.uint8], shape: tuple[int, ...], number: int) -> None:
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8:
        raise ValueError(f"frame {number}: {pixels.shape} {pixels.dtype}; wanted (h, w, 3) uint8")
    if pixels.shape != shape:
        raise ValueError(f"frame {number}: {pixels.shape}; the first one is {shape}")


def _frame(pixels: NDArray[np.uint8], number: int, fps: int) -> Any:
    """As H.264 wants it: of even size, its colours in YUV at half the resolution."""
    from av import VideoFrame

    height, width, _ = pixels.shape
    even = np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    frame = VideoFrame.from_ndarray(even, format="rgb24").reformat(format="yuv420p")
    frame.pts, frame.time_base = number, Fraction(1, fps)
    return frame


@contextmanager
def _whole(path: Path) -> Iterator[Path]:
    """A hidden file beside `path`, which takes its place once the block is through, or goes."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        with _written(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        with _written(path):
            partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def _written(path: Path) -> Iterator[None]:
    """A full disk becomes a `Zk0Error`."""
    try:
        yield
    except OSError as error:
        raise cannot_write(path, error) from error
