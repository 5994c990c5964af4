"""One simulated SO-101 at its table, in the units of a LeRobot dataset."""

from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import numpy as np
from so101_nexus.lerobot_dataset import dataset_row_to_sim_qpos, sim_qpos_to_dataset_row

from zk0.sim import experts
from zk0.sim.kinematics import Arm
from zk0.sim.recipes import Scene
from zk0.sim.rendering import Images, Renderer, RendererName, renderer
from zk0.sim.tasks import environment

JOINTS = (
    "shoulder_pan",
    "shoulder_lift",
    "elbow_flex",
    "wrist_flex",
    "wrist_roll",
    "gripper",
)


@dataclass(frozen=True)
class Observation:
    """What a policy sees at one moment."""

    state: np.ndarray  # (6,) float32: degrees for five joints, the gripper's opening in 0..100
    images: Images


class World:
    """A scene one can reset, look at and act in, `fps` times a second of simulated time.

    With `rendering=None` observations have no images and no graphics library is touched. One world
    with OpenGL can be open at a time; use it as a context manager or call `close`.
    """

    def __init__(
        self,
        scene: Scene,
        fps: int = 10,
        image_size: int = 128,
        rendering: RendererName | None = None,
    ) -> None:
        self.scene, self.fps = scene, fps
        self._env = environment(scene)
        # It refuses to run once rendering quality has changed, though it renders nothing here.
        self._env._check_rendering_quality = lambda: None
        self._substeps = _substeps(fps, self._env.control_dt)
        self._arm = Arm(self._env)
        self._renderer: Renderer | None = None
        if rendering is not None:
            self._renderer = renderer(rendering, self._env.model, image_size)
        self._target: np.ndarray = np.zeros(6)
        self._info: dict[str, Any] = {}

    def reset(self, seed: int) -> None:
        """Start the episode that `seed` determines."""
        _, self._info = self._env.reset(seed=seed)
        self._target = np.array(self._env._prev_target)

    def observe(self) -> Observation:
        images = self._renderer.render(self._env.data) if self._renderer else {}
        return Observation(self.state, images)

    @property
    def state(self) -> np.ndarray:
        """(6,) float32: degrees, gripper 0..100."""
        row = sim_qpos_to_dataset_row(self._env._get_current_qpos())
        return np.asarray(row, np.float32)

    def step(self, action: np.ndarray) -> None:
        """Move the joint targets to `action` (6,; degrees, gripper 0..100) over one frame."""
        goal = dataset_row_to_sim_qpos(np.asarray(action, np.float64))
        goal = np.clip(goal, self._env._target_low, self._env._target_high)
        travel = goal - self._target
        # Only the last substep asks the environment for observations, reward and success.
        for substep in range(1, self._substeps):
            target = self._target + travel * (substep / self._substeps)
            self._env.data.ctrl[self._env._actuator_ids] = target
            self._env._advance_physics()
        *_, self._info = self._env.step(goal.astype(np.float32))
        self._target = goal

    @property
    def success(self) -> bool:
        """Whether the task is done in the present state."""
        return bool(self._info["success"])

    @property
    def instruction(self) -> str:
        """The present episode's task in words."""
        return str(self._env.task_description)

    def expert_actions(self) -> list[np.ndarray]:
        """The scripted expert's actions (6,) float32 for the episode just reset; or Unreachable."""
        plan = experts.plan(self._env, self._arm, self._target, self.scene.task, self.fps)
        rows = [np.asarray(sim_qpos_to_dataset_row(target), np.float32) for target in plan]
        for row in rows:
            row[5] = np.clip(row[5], 0.0, 100.0)
        return rows

    def close(self) -> None:
        if self._renderer is not None:
            self._renderer.close()
        self._env.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _substeps(fps: int, control_dt: float) -> int:
    """Control intervals per frame; fps has to divide the control rate (50 Hz)."""
    substeps = round(1 / (fps * control_dt))
    if substeps < 1 or abs(substeps * fps * control_dt - 1) > 1e-6:
        raise ValueError(f"fps = {fps} does not divide the control rate, {1 / control_dt:.0f} Hz")
    return substeps
