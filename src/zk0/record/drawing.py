"""Pictures for videos: a rollout in the simulator, and predicted against recorded actions.

What does not change over a video is drawn once; a frame then costs a few milliseconds.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw, ImageFont

from zk0.data.joints import JOINTS

Images = Mapping[str, NDArray[np.uint8]]  # (height, width, 3) RGB by camera
_Limits = tuple[tuple[float, float], ...]
_Key = tuple[str, str, Callable[[ImageDraw.ImageDraw, float, float, str], None]]

_HEIGHT = 384  # pixels of a camera's image
_GAP, _MARGIN = 8, 16
_WIDTH = 2 * _HEIGHT + _GAP  # least width of a picture
_TOP = 24  # height of the cameras' names
_HEADING = 64  # height of instruction and time
_ROW = 32  # height of a joint's bar
_PLOTS = 300  # height of the six plots
_BACKGROUND, _INK, _FAINT, _TRACK = "#ffffff", "#1b1f24", "#6a737d", "#d0d7de"
# Okabe and Ito's colours, which colour-blind people can tell apart.
_BLUE, _ORANGE, _GREEN = "#0072b2", "#d55e00", "#00795c"
_LEAST_SPAN = 10.0  # degrees or percent that a plot covers, so that jitter does not look large


def draw_rollout(
    images: Images,
    instruction: str,
    step: int,
    fps: int,
    targets: ArrayLike,
    state: ArrayLike,
    success: bool,
    limits: Sequence[ArrayLike],
) -> NDArray[np.uint8]:
    """A moment of a closed-loop video, (height, width, 3): images, and the joints below them.

    `targets` and `state` are (6,), `limits` the least and the greatest that the joints reach, each
    (6,): degrees, the gripper in percent. `step` counts frames, `fps` of them in a second.
    """
    shown = [_scaled(image) for image in images.values()]
    least, most = (np.asarray(bounds, np.float64).tolist() for bounds in limits)
    reach = tuple(zip(least, most, strict=True))
    names, widths = tuple(images), tuple(image.width for image in shown)
    picture = _rollout_background(instruction, names, widths, reach).copy()
    draw = ImageDraw.Draw(picture)
    _paste(picture, shown)
    _write_time(draw, f"step {step}", step, fps)
    if success:
        _mark_success(draw, picture.width, widths)
    for joint, bar in enumerate(_bars(picture.width, reach)):
        bar.draw(draw, joint, float(np.asarray(state)[joint]), float(np.asarray(targets)[joint]))
    return np.asarray(picture)


class OpenLoopDrawing:
    """An episode's recorded and predicted actions, six plots below its images.

    Both are (frames, 6): degrees, the gripper in percent. The policy predicted every `chunk`
    frames; a faint line marks where one action chunk ends and the next one begins. `images` are
    any frame's: what counts is the cameras and their sizes.
    """

    def __init__(
        self,
        images: Images,
        instruction: str,
        recorded: ArrayLike,
        predicted: ArrayLike,
        chunk: int,
        fps: int,
    ) -> None:
        actions = np.stack([np.asarray(recorded, np.float64), np.asarray(predicted, np.float64)])
        if actions.ndim != 3 or actions.shape[2] != len(JOINTS):
            raise ValueError(f"actions are {actions.shape[1:]}; wanted (frames, {len(JOINTS)})")
        self._fps = fps
        widths = [_scaled(image).width for image in images.values()]
        width, top = _width(widths), _TOP + _HEIGHT + _HEADING
        self._background = _blank(width, top + _PLOTS, instruction, tuple(images), widths)
        note = f"predicted, every {chunk} frames"
        keys = (("recorded", _BLUE, _bar_key), (note, _ORANGE, _dashes_key))
        _write_keys(ImageDraw.Draw(self._background), width, keys)
        plots, self._traces = _plots(actions, chunk, fps, width)
        self._background.paste(plots, (0, top))
        self._traces[:, :, :, 1] += top

    def draw(self, images: Images, at: int) -> NDArray[np.uint8]:
        """(height, width, 3): the `images` of frame `at`, and a cursor there in each plot."""
        picture = self._background.copy()
        draw = ImageDraw.Draw(picture)
        _paste(picture, [_scaled(image) for image in images.values()])
        _write_time(draw, f"frame {at}", at, self._fps)
        for floor, ceiling, recorded, predicted in self._traces[:, :, at]:
            draw.line((*floor, *ceiling), fill=_INK, width=1)
            _dot(draw, recorded, _BLUE)
            _dot(draw, predicted, _ORANGE)
        return np.asarray(picture)


# --- layout ---------------------------------------------------------------------------------


def _scaled(image: NDArray[np.uint8]) -> Image.Image:
    picture = Image.fromarray(image)
    width = round(picture.width * _HEIGHT / picture.height)
    return picture.resize((width, _HEIGHT), Image.Resampling.BICUBIC)


def _width(widths: Sequence[int]) -> int:
    """Of a picture: even, as videos have to be."""
    width = max(_WIDTH, sum(widths) + _GAP * (len(widths) - 1))
    return width + width % 2


def _places(widths: Sequence[int]) -> list[int]:
    """Where each image begins, side by side in the middle of the picture."""
    used = sum(widths) + _GAP * (len(widths) - 1)
    first = (_width(widths) - used) // 2
    return [first + sum(widths[:i]) + _GAP * i for i in range(len(widths))]


def _paste(picture: Image.Image, shown: Sequence[Image.Image]) -> None:
    for image, x in zip(shown, _places([image.width for image in shown]), strict=True):
        picture.paste(image, (x, _TOP))


def _blank(
    width: int, height: int, instruction: str, cameras: Sequence[str], widths: Sequence[int]
) -> Image.Image:
    """A picture with the cameras' names on top and the instruction below the images' place."""
    picture = Image.new("RGB", (width, height), _BACKGROUND)
    draw = ImageDraw.Draw(picture)
    for camera, x in zip(cameras, _places(widths), strict=True):
        name = camera.removeprefix("observation.images.")
        draw.text((x + 6, _TOP / 2), name, fill=_FAINT, font=_font(13), anchor="lm")
    line = _shortened(instruction, _font(17), width - 2 * _MARGIN - 130)
    draw.text((_MARGIN, _TOP + _HEIGHT + 20), line, fill=_INK, font=_font(17), anchor="lm")
    return picture


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    """The plots' font, which has the letters of most European languages."""
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf", size)


def _shortened(text: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    text = " ".join(text.split())
    if font.getlength(text) <= width:
        return text
    fitting = (text[:n] + "…" for n in range(len(text), -1, -1))
    return next(line for line in fitting if font.getlength(line) <= width)


def _write_time(draw: ImageDraw.ImageDraw, count: str, frame: int, fps: int) -> None:
    y = _TOP + _HEIGHT + 46
    draw.text((_MARGIN, y), count, fill=_FAINT, font=_font(14), anchor="lm")
    draw.text((_MARGIN + 90, y), f"{frame / fps:.1f} s", fill=_FAINT, font=_font(14), anchor="lm")


def _write_keys(draw: ImageDraw.ImageDraw, width: int, keys: Sequence[_Key]) -> None:
    """What colours and shapes mean, to the right of the time."""
    x, y = float(width - _MARGIN), _TOP + _HEIGHT + 46
    for text, colour, shape in reversed(keys):
        x -= _font(14).getlength(text)
        draw.text((x, y), text, fill=colour, font=_font(14), anchor="lm")
        shape(draw, x - 16, y, colour)
        x -= 48


def _bar_key(draw: ImageDraw.ImageDraw, x: float, y: float, colour: str) -> None:
    draw.rectangle((x - 10, y - 2, x + 8, y + 3), fill=colour)


def _dashes_key(draw: ImageDraw.ImageDraw, x: float, y: float, colour: str) -> None:
    for left in (x - 16, x - 7, x + 2):
        draw.rectangle((left, y - 1, left + 6, y + 1), fill=colour)


def _triangle(draw: ImageDraw.ImageDraw, x: float, y: float, colour: str) -> None:
    draw.polygon((x - 5, y - 4, x + 5, y - 4, x, y + 5), fill=colour)


def _spoken(joint: int) -> str:
    return JOINTS[joint].replace("_", " ")


def _quantity(joint: int, value: float) -> str:
    rounded = round(value, 1) + 0.0  # no "-0.0"
    return f"{rounded:.1f}{'%' if JOINTS[joint] == 'gripper' else '°'}"


# --- rollouts -------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Bar:
    """A joint's bar: where it is, and what it spans."""

    left: int
    right: int
    end: int  # of its numbers
    y: int
    least: float
    most: float

    def x(self, value: float) -> float:
        """Where `value` is; the end that is nearer where it is out of reach."""
        share = (value - self.least) / (self.most - self.least)
        return self.left + min(max(share, 0.0), 1.0) * (self.right - self.left)

    def draw_track(self, draw: ImageDraw.ImageDraw, joint: int) -> None:
        draw.text((self.left - 8, self.y), _spoken(joint), _INK, _font(14), "rm")
        draw.rectangle((self.left, self.y - 4, self.right, self.y + 4), fill=_TRACK)
        zero = self.x(0.0)
        draw.line((zero, self.y + 5, zero, self.y + 8), fill=_FAINT)

    def draw(self, draw: ImageDraw.ImageDraw, joint: int, state: float, target: float) -> None:
        """A bar from zero to the state, a triangle above it at the target, and both numbers."""
        font, middle = _font(14), self.end - 60
        draw.text((middle, self.y), _quantity(joint, state), _BLUE, font, "rm")
        draw.text((self.end, self.y), _quantity(joint, target), _ORANGE, font, "rm")
        if math.isfinite(state):
            ends = sorted((self.x(0.0), self.x(state)))
            draw.rectangle((ends[0], self.y - 4, ends[1], self.y + 4), fill=_BLUE)
        if math.isfinite(target):
            _triangle(draw, self.x(target), self.y - 10, _ORANGE)


@lru_cache(maxsize=4)
def _rollout_background(
    instruction: str, cameras: tuple[str, ...], widths: tuple[int, ...], limits: _Limits
) -> Image.Image:
    width = _width(widths)
    height = _TOP + _HEIGHT + _HEADING + 3 * _ROW + _MARGIN
    picture = _blank(width, height, instruction, cameras, widths)
    draw = ImageDraw.Draw(picture)
    _write_keys(draw, width, (("state", _BLUE, _bar_key), ("target", _ORANGE, _triangle)))
    for joint, bar in enumerate(_bars(width, limits)):
        bar.draw_track(draw, joint)
    return picture


@lru_cache(maxsize=4)
def _bars(width: int, limits: _Limits) -> list[_Bar]:
    """Two columns of three."""
    column, bars = (width - 3 * _MARGIN) // 2, []
    for joint, (least, most) in enumerate(limits):
        left = _MARGIN + (joint // 3) * (column + _MARGIN)
        y = _TOP + _HEIGHT + _HEADING + (joint % 3) * _ROW + _ROW // 2
        bars.append(_Bar(left + 104, left + column - 124, left + column, y, least, most))
    return bars


def _mark_success(draw: ImageDraw.ImageDraw, width: int, widths: Sequence[int]) -> None:
    """A frame around the images and a plate beside the instruction."""
    places = _places(widths)
    right, bottom = places[-1] + widths[-1] - 1, _TOP + _HEIGHT - 1
    draw.rectangle((places[0], _TOP, right, bottom), outline=_GREEN, width=5)
    middle, y = width - _MARGIN - 56, _TOP + _HEIGHT + 20
    draw.rounded_rectangle((middle - 56, y - 13, middle + 56, y + 13), 6, fill=_GREEN)
    draw.text((middle, y), "✔ SUCCESS", _BACKGROUND, _font(15), "mm")


# --- open loop ------------------------------------------------------------------------------


def _plots(
    actions: NDArray[np.float64], chunk: int, fps: int, width: int
) -> tuple[Image.Image, NDArray[np.float64]]:
    """The plots of `actions` (2, frames, 6), recorded and predicted, and where things are in them.

    The latter is (6, 4, frames, 2), pixels: the ends of the cursor at a frame, and both actions.
    """
    figure = Figure(figsize=(width / 100, _PLOTS / 100), dpi=100, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    panels = list(figure.subplots(2, 3, sharex=True).flat)
    for joint, axes in enumerate(panels):
        _plot(axes, joint, actions[:, :, joint], chunk, fps)
    canvas.draw()
    traces = [_trace(axes, actions[:, :, j], fps) for j, axes in enumerate(panels)]
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB"), np.stack(traces)


def _plot(axes: Axes, joint: int, actions: NDArray[np.float64], chunk: int, fps: int) -> None:
    recorded, predicted = actions
    times = np.arange(len(recorded)) / fps
    for border in times[chunk::chunk]:
        axes.axvline(border, color=_TRACK, linewidth=0.8, zorder=0)
    axes.plot(times, recorded, color=_BLUE, linewidth=2.0)
    axes.plot(times, predicted, color=_ORANGE, linewidth=1.3, linestyle=(0, (4, 1.5)))
    error = _quantity(joint, float(np.abs(recorded - predicted).mean()))
    axes.set_title(f"{_spoken(joint)}: mean error {error}", fontsize=9, loc="left", pad=3)
    axes.set_xlim(0, max(times[-1], 1 / fps))
    axes.set_ylim(*_span(actions))
    axes.tick_params(labelsize=8, length=2, colors=_FAINT)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["bottom", "left"]].set_color(_FAINT)
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.xaxis.set_major_formatter("{x:g} s")


def _span(actions: NDArray[np.float64]) -> tuple[float, float]:
    """From the least to the greatest finite action, with room around."""
    finite = actions[np.isfinite(actions)]
    least, most = (finite.min(), finite.max()) if finite.size else (0.0, 0.0)
    room = 0.08 * (most - least) + max(0.0, _LEAST_SPAN - (most - least)) / 2
    return least - room, most + room


def _trace(axes: Axes, actions: NDArray[np.float64], fps: int) -> NDArray[np.float64]:
    """(4, frames, 2), pixels from the top left corner of the plots' picture."""
    recorded, predicted = actions
    times = np.arange(len(recorded)) / fps
    floor, ceiling = axes.get_ylim()
    heights = (np.full_like(times, floor), np.full_like(times, ceiling), recorded, predicted)
    points = np.stack([axes.transData.transform(np.stack([times, y], 1)) for y in heights])
    points[..., 1] = _PLOTS - points[..., 1]
    return points


def _dot(draw: ImageDraw.ImageDraw, point: NDArray[np.float64], colour: str) -> None:
    if np.isfinite(point).all():
        x, y = point
        draw.ellipse((x - 4, y - 4, x + 4, y + 4), fill=colour, outline=_BACKGROUND)
