"""A policy in the simulator: rollouts of a task, some of them filmed."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from lerobot.policies.smolvla.modeling_smolvla import SmolVLAPolicy
from loguru import logger
from numpy.typing import NDArray

from zk0.ahead import one_ahead
from zk0.data.joints import JOINTS
from zk0.data.statistics import Statistics
from zk0.errors import Zk0Error
from zk0.evaluation.twins import Twin
from zk0.record.drawing import draw_rollout
from zk0.record.evidence import Rollout
from zk0.record.videos import VideoFacts, save_facts, write_video
from zk0.sim import opengl

if TYPE_CHECKING:
    from zk0.sim.rendering import RendererName
    from zk0.sim.world import Observation

# `zk0.sim.world` imports MuJoCo, which reads MUJOCO_GL as it is imported: `can_render` comes first.

TOGETHER = 50  # episodes: bounds the memory of their images
SIMPLE = ("hold", "random", "expert")
CAMERAS = {"observation.images.front", "observation.images.wrist"}


@cache
def can_render() -> bool:
    """Whether there can be rollouts in this process; says once why not. Without OpenGL they would
    take longer than the training."""
    try:
        require_rendering()
    except Zk0Error as reason:
        logger.warning("policy loss only: {}", reason)
        return False
    return True


def require_rendering() -> None:
    """Prepare this process for rollouts; raises `Zk0Error` where it cannot play any."""
    choice = opengl.configure()
    if choice.backend is None:
        raise Zk0Error(f"the simulator's cameras need OpenGL: {choice.message}")


def check_twin(policy: SmolVLAPolicy) -> None:
    """Raise `Zk0Error` where a policy is for another robot or sees through other cameras than the
    simulated one."""
    config, takes = policy.config, sorted(policy.config.image_features)
    if takes != sorted(CAMERAS):
        raise Zk0Error(
            f"the policy takes {', '.join(takes)}; the simulator has {', '.join(sorted(CAMERAS))}: "
            "there is no twin to try it out in."
        )
    joints = {tuple(config.robot_state_feature.shape), tuple(config.action_feature.shape)}
    if joints != {(len(JOINTS),)}:
        raise Zk0Error("the policy is for a robot of other joints than an SO-101: it has no twin.")


def play_policy(
    policy: SmolVLAPolicy,
    statistics: Statistics,
    twin: Twin,
    seeds: Sequence[int],
    films: "dict[int, Film] | None" = None,
) -> list[Rollout]:
    """The policy's rollouts of a task; `films`, by seed, take up every frame of theirs."""
    from zk0.evaluation.controllers import PolicyController

    controller = PolicyController(policy, statistics)
    return _play(twin, lambda world: controller, seeds, "opengl", films or {})


def play_simple(twin: Twin, who: str, seeds: Sequence[int]) -> list[Rollout]:
    """The rollouts of "hold", "random" or "expert", which look at no image."""
    from zk0.evaluation.controllers import Expert, Hold, Random

    make = {"hold": lambda world: Hold(), "random": Random, "expert": Expert}[who]
    return _play(twin, make, seeds, None, {})


def _play(
    twin: Twin,
    controller_in: Callable,
    seeds: Sequence[int],
    rendering: "RendererName | None",
    films: "dict[int, Film]",
) -> list[Rollout]:
    from zk0.evaluation.rollouts import roll_out
    from zk0.sim.world import World

    rollouts = []
    with World(twin.scene, twin.fps, twin.image_size, rendering) as world:
        controller = controller_in(world)
        for film in films.values():
            film.limits = world.limits
        for start in range(0, len(seeds), TOGETHER):
            part = seeds[start : start + TOGETHER]
            rollouts += roll_out(world, twin.name, controller, part, films)
    return rollouts


@dataclass
class Film:
    """The frames of one rollout, drawn when it is over."""

    limits: tuple[NDArray[np.float32], ...] = ()
    images: list[dict[str, NDArray[np.uint8]]] = field(default_factory=list)
    states: list[NDArray[np.float32]] = field(default_factory=list)
    targets: list[NDArray[np.float32]] = field(default_factory=list)
    successes: list[bool] = field(default_factory=list)

    def __call__(
        self, observation: "Observation", action: NDArray[np.float32], success: bool
    ) -> None:
        self.images.append(observation.images)
        self.states.append(observation.state)
        self.targets.append(action)
        self.successes.append(success)

    def save(
        self, folder: Path, who: str, server_round: int, rollout: Rollout, loss: float | None
    ) -> Path:
        """Write `rollout_TASK_SEED.mp4` and its JSON to `folder`."""
        video = folder / f"rollout_{rollout.task}_{rollout.seed}.mp4"
        pictures = one_ahead(lambda step: self._draw(step, rollout), range(rollout.frames))
        write_video(video, pictures, rollout.fps)
        facts = VideoFacts(
            who=who,
            round=server_round,
            kind="rollout",
            task=rollout.task,
            instruction=rollout.instruction,
            seed=rollout.seed,
            episode=None,
            success=rollout.success,
            frames=rollout.frames,
            fps=rollout.fps,
            seconds=rollout.seconds,
            smoothness=rollout.smoothness,
            policy_loss=loss,
            action_error=None,
        )
        save_facts(video, facts)
        return video

    def _draw(self, step: int, rollout: Rollout) -> NDArray[np.uint8]:
        return draw_rollout(
            self.images[step],
            rollout.instruction,
            step,
            rollout.fps,
            self.targets[step],
            self.states[step],
            self.successes[step],
            self.limits,
        )


def save_films(
    films: Mapping[int, Film],
    rollouts: Sequence[Rollout],
    folder: Path,
    who: str,
    server_round: int,
    loss: float | None,
) -> list[Path]:
    """Write the video and the JSON of every rollout that was filmed; the videos' paths."""
    return [
        films[rollout.seed].save(folder, who, server_round, rollout, loss)
        for rollout in rollouts
        if rollout.seed in films
    ]
