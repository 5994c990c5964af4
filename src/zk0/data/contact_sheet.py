"""A few episodes of a dataset at a glance, as one PNG."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from zk0.data.formats import missing
from zk0.errors import Zk0Error

_TILE = 144  # pixels, longest edge of a frame
_GAP = 4
_MARGIN = 16
_BACKGROUND, _INK, _FAINT = "#ffffff", "#1b1f24", "#6a737d"


def contact_sheet(folder: Path, png: Path, episodes: int = 4, moments: int = 6) -> None:
    """Draw `episodes` of the LeRobotDataset in `folder`, spread over it, at `moments` of each.

    Every camera has a row in each episode; the instruction stands above. Writes to `png`.
    """
    dataset = _open(folder)
    chosen = _spread(0, dataset.meta.total_episodes - 1, episodes)
    strips = [_strip(dataset, episode, moments) for episode in chosen]
    _stack([_title(dataset, folder), *strips]).save(png)


def _open(folder: Path) -> Any:
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    if absent := missing(folder, folder.name):  # which lerobot would ask the Hub for
        raise Zk0Error(f"{folder} is incomplete: no {absent[0]}. Get it anew.")
    # pyav works with or without FFmpeg's shared libraries; a few frames need no speed.
    return LeRobotDataset(folder.name, root=folder, video_backend="pyav")


def _spread(first: int, last: int, count: int) -> list[int]:
    """Up to `count` different whole numbers, evenly from `first` to `last`."""
    return sorted({round(float(x)) for x in np.linspace(first, last, count)})


def _strip(dataset: Any, episode: int, moments: int) -> Image.Image:
    """One episode: its instruction, the times, and a row of frames for each camera."""
    span = dataset.meta.episodes[episode]
    first, last = int(span["dataset_from_index"]), int(span["dataset_to_index"]) - 1
    indices = _spread(first, last, moments)
    rows = [dataset[index] for index in indices]
    headline = f"episode {episode}:  {rows[0]['task']}  ({last - first + 1} frames)"
    times = [_caption(f"{(index - first) / dataset.fps:.1f} s") for index in indices]
    pictures = [
        _beside([_name_plate(camera), *(_tile(row[camera]) for row in rows)])
        for camera in dataset.meta.camera_keys
    ]
    return _stack([_text(headline, 15, _INK), _beside([_name_plate(""), *times]), *pictures])


def _tile(image: Any) -> Image.Image:
    """(3, height, width) floats in 0..1 as a picture, scaled to the tile."""
    pixels = (image.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    picture = Image.fromarray(pixels)
    scale = _TILE / max(picture.size)
    size = (round(picture.width * scale), round(picture.height * scale))
    return picture.resize(size, Image.Resampling.LANCZOS)


def _title(dataset: Any, folder: Path) -> Image.Image:
    meta = dataset.meta
    facts = f"{meta.total_episodes} episodes, {meta.total_frames} frames, {meta.fps} frames/s"
    return _text(f"{folder.name}:  {facts}, {meta.robot_type or 'unknown robot'}", 18, _INK)


def _name_plate(camera: str) -> Image.Image:
    return _text(camera.removeprefix("observation.images."), 12, _FAINT, width=56)


def _caption(text: str) -> Image.Image:
    return _text(text, 12, _FAINT, width=_TILE)


def _text(text: str, size: int, colour: str, width: int | None = None) -> Image.Image:
    font = ImageFont.load_default(size)
    needed = int(font.getlength(text)) + 1
    label = Image.new("RGB", (width or needed, round(size * 1.5)), _BACKGROUND)
    ImageDraw.Draw(label).text((0, 0), text, fill=colour, font=font)
    return label


def _beside(parts: list[Image.Image]) -> Image.Image:
    width = sum(part.width + _GAP for part in parts)
    row = Image.new("RGB", (width, max(part.height for part in parts)), _BACKGROUND)
    x = 0
    for part in parts:
        row.paste(part, (x, 0))
        x += part.width + _GAP
    return row


def _stack(parts: list[Image.Image]) -> Image.Image:
    height = sum(part.height + _GAP for part in parts) + 2 * _MARGIN
    sheet = Image.new("RGB", (max(p.width for p in parts) + 2 * _MARGIN, height), _BACKGROUND)
    y = _MARGIN
    for part in parts:
        sheet.paste(part, (_MARGIN, y))
        y += part.height + _GAP
    return sheet
