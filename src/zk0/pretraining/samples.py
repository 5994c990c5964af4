"""Frames of the base's demonstrations as arrays: made by worker processes, then read in place."""

import hashlib
import json
import multiprocessing
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from loguru import logger
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from zk0.pretraining.scenes import SHARES, Share, is_taken, scenes, taken_places
from zk0.sim import opengl
from zk0.sim.recipes import GENERATION

if TYPE_CHECKING:
    from zk0.sim.world import Observation, World

# `zk0.sim.world` imports MuJoCo, which reads MUJOCO_GL as it is imported: workers do so themselves.

EVERY = 2  # frames: neighbours show nearly the same
CAMERAS = ("front", "wrist")
FIRST_SEED = 100_000_000  # of the first episode: no dataset and no rollout has it
_STRIDE = 1_000_000  # seeds of a shard
_PARTS = 2  # shards of a share, whatever the number of workers

# float32 except `frames` (uint8), `inside` (bool), `episode` (int64)
FIELDS = ("states", "actions", "inside", "landmarks", "episode", "words")


@dataclass(frozen=True)
class Extent:
    """How much a sample shows."""

    size: int = 128  # pixels a side
    chunk: int = 16  # frames of action


BASE = Extent()


@dataclass(frozen=True)
class Shard:
    """One share's samples as one worker makes them."""

    number: int
    share: Share
    samples: int
    folder: Path
    extent: Extent = BASE

    @property
    def is_done(self) -> bool:
        return (self.folder / "instructions.json").exists()  # written last


def plan(parent: Path, samples: int, extent: Extent = BASE) -> list[Shard]:
    """`samples` in all, the same on every machine, in a folder of their own in `parent`."""
    folder = parent / f"samples_{samples}_{fingerprint(extent)[:8]}"
    return [
        Shard(
            number, share, round(samples * share.part / _PARTS), folder / f"shard_{number}", extent
        )
        for number, share in enumerate(each for each in SHARES for _ in range(_PARTS))
    ]


def fingerprint(extent: Extent = BASE) -> str:
    """SHA-256 of all that the samples follow from, beside their number: 64 hexadecimal digits."""
    wanted = [[asdict(share), *map(asdict, scenes(share))] for share in SHARES]
    taken = [asdict(place) for place in taken_places()]
    extents = [EVERY, extent.chunk, extent.size]
    content = [GENERATION, wanted, taken, *extents, FIRST_SEED, _STRIDE, _PARTS]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def make(shards: list[Shard], workers: int) -> None:
    """Make what is missing; may be killed and called again."""
    due = [shard for shard in shards if not shard.is_done]
    if not due:
        return
    opengl.configure()
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        for number, shard in enumerate(pool.imap_unordered(_make, due), 1):
            logger.info("samples: {} of {}, {}", number, len(due), shard.share)


def _make(shard: Shard) -> Shard:
    shard.folder.mkdir(parents=True, exist_ok=True)
    size = shard.extent.size
    shape = (shard.samples, len(CAMERAS), size, size, 3)
    frames = open_memmap(shard.folder / "frames.npy", "w+", np.uint8, shape)
    rows: dict[str, list[NDArray]] = {name: [] for name in FIELDS}
    instructions: dict[str, int] = {}
    for number, sample in enumerate(_samples(shard)):
        frames[number] = sample.frames
        for name in FIELDS[:-1]:
            rows[name].append(getattr(sample, name))
        rows["words"].append(np.array(instructions.setdefault(sample.words, len(instructions))))
    frames.flush()
    for name in FIELDS:
        np.save(shard.folder / f"{name}.npy", np.stack(rows[name]))
    (shard.folder / "instructions.json").write_text(json.dumps(list(instructions)))
    return shard


@dataclass(frozen=True)
class Sample:
    frames: NDArray[np.uint8]  # (cameras, size, size, 3)
    states: NDArray[np.float32]  # (6,)
    actions: NDArray[np.float32]  # (chunk, 6), the last one repeated beyond the episode's end
    inside: NDArray[np.bool_]  # (chunk,) which of them are inside the episode
    landmarks: NDArray[np.float32]  # (6, 3), as `World.landmarks` has them
    episode: NDArray[np.int64]  # () its seed
    words: str


def _samples(shard: Shard) -> Iterator[Sample]:
    """As many as the shard has, from all of its share's scenes alike."""
    from zk0.sim.world import World

    seed, made = FIRST_SEED + shard.number * _STRIDE, 0
    choice = scenes(shard.share)
    for number, scene in enumerate(choice, 1):
        with World(scene, image_size=shard.extent.size, rendering="opengl") as world:
            while made < shard.samples * number // len(choice):
                seed += 1
                for sample in _episode(world, seed, shard.extent.chunk)[: shard.samples - made]:
                    made += 1
                    yield sample


def _episode(world: "World", seed: int, chunk: int) -> list[Sample]:
    """An episode's samples, each in another look; none where it fails or is in a taken place."""
    from zk0.sim.episodes import expert_steps
    from zk0.sim.kinematics import Unreachable

    world.reset(seed)
    if any(is_taken(place[:2]) for place in world.places):
        return []
    draw = np.random.default_rng([seed, 3])
    first, ahead, seen, actions = int(draw.integers(EVERY)), np.arange(chunk), {}, []
    try:
        for step, action in enumerate(expert_steps(world, seed)):
            if step % EVERY == first:
                world.repaint(draw)
                seen[step] = (world.observe(), world.landmarks)
            actions.append(action)
    except Unreachable:
        return []
    if not world.success:
        return []
    return [
        _sample(observation, landmarks, np.stack(actions), step + ahead, seed, world.instruction)
        for step, (observation, landmarks) in seen.items()
    ]


def _sample(
    observation: "Observation",
    landmarks: NDArray[np.float64],
    actions: NDArray[np.float32],
    steps: NDArray[np.int64],
    seed: int,
    words: str,
) -> Sample:
    return Sample(
        frames=np.stack([observation.images[camera] for camera in CAMERAS]),
        states=observation.state,
        actions=actions[np.minimum(steps, len(actions) - 1)],
        inside=steps < len(actions),
        landmarks=np.asarray(landmarks, np.float32),
        episode=np.array(seed),
        words=words,
    )


class Samples:
    """All shards as one sequence, with `chunk` frames of action, those that the shards have or the
    first of them; images stay on disk until they are asked for."""

    def __init__(self, shards: list[Shard], chunk: int = BASE.chunk) -> None:
        folders = [shard.folder for shard in shards]
        self._frames = [np.load(folder / "frames.npy", mmap_mode="r") for folder in folders]
        self._starts = np.cumsum([0, *(len(part) for part in self._frames)])
        self.states, self.actions, self.inside, self.landmarks, self.episode = (
            np.concatenate([np.load(folder / f"{name}.npy") for folder in folders])
            for name in FIELDS[:-1]
        )
        self.actions, self.inside = self.actions[:, :chunk], self.inside[:, :chunk]
        self.crowded = np.repeat(
            [shard.share.distractors > 0 for shard in shards], np.diff(self._starts)
        )
        lists = [json.loads((folder / "instructions.json").read_text()) for folder in folders]
        self.instructions = sorted({text for texts in lists for text in texts})
        number = {text: index for index, text in enumerate(self.instructions)}
        self.words = np.concatenate(
            [
                np.array([number[text] for text in texts])[np.load(folder / "words.npy")]
                for folder, texts in zip(folders, lists, strict=True)
            ]
        )

    def __len__(self) -> int:
        return len(self.states)

    def frames(self, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Images (n, cameras, SIZE, SIZE, 3)."""
        shards = np.searchsorted(self._starts, indices, side="right") - 1
        return np.stack(
            [
                self._frames[shard][index - self._starts[shard]]
                for shard, index in zip(shards, indices, strict=True)
            ]
        )
