"""One simulated SO-101 at its table, in the units of a LeRobot dataset."""

from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import mujoco
import numpy as np
from so101_nexus.lerobot_dataset import dataset_row_to_sim_qpos, sim_qpos_to_dataset_row

from zk0.sim import experts
from zk0.sim.appearance import Appearance
from zk0.sim.kinematics import Arm
from zk0.sim.recipes import Scene, View
from zk0.sim.rendering import Images, Renderer, RendererName, front_pose, project, renderer
from zk0.sim.tasks import environment, goal_position, move_to, object_pose


@dataclass(frozen=True)
class Observation:
    """What a policy sees at one moment."""

    state: np.ndarray  # (6,) float32: degrees for five joints, the gripper's opening in 0..100
    images: Images


@dataclass(frozen=True)
class Stages:
    """How far the task is done at one moment; None where the task has no such stage."""

    distance: float  # metres, of the gripper from the object
    grasped: bool | None
    lifted: bool | None  # by 2 cm, in the gripper
    moved: bool | None  # by a third of what success takes, the way it has to


@dataclass(frozen=True, eq=False)
class Moment:
    """All that an episode's next frame depends on, to go on with it later."""

    physics: np.ndarray
    model: dict[str, np.ndarray]
    environment: dict[str, Any]
    world: dict[str, Any]
    view: View


# What a reset changes in the model: colours, the wrist camera's mounting, where the goal lies.
_PER_EPISODE = (
    "mat_rgba",
    "geom_rgba",
    "geom_contype",
    "geom_conaffinity",
    "body_pos",
    "cam_pos",
    "cam_quat",
    "cam_fovy",
    "light_diffuse",
    "light_dir",
)
_STATE = mujoco.mjtState.mjSTATE_INTEGRATION
_LIFTED = 0.02  # metres
_FREE, _LEAST_FREEDOM = 0.08, 0.25  # metres above the object from which on anything goes
_LOOKS = 1  # keeps the draws of an episode's look apart from those of its places


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
        self._look = Appearance(self._env, scene.view, scene.variety)
        self._renderer: Renderer | None = None
        if rendering is not None:
            self._renderer = renderer(rendering, self._env.model, image_size)
        self._target: np.ndarray = np.zeros(6)
        self._height = 0.0
        self._info: dict[str, Any] = {}

    def reset(self, seed: int) -> None:
        """Start the episode that `seed` determines."""
        regions = self.scene.regions
        # In pairs, so that halves of a dataset, every other episode, have all regions too.
        move_to(self._env, regions[seed // 2 % len(regions)])
        self._look.restore()
        _, self._info = self._env.reset(seed=seed)
        self._look.remember()
        self.repaint(np.random.default_rng([seed, _LOOKS]))
        self._target = np.array(self._env._prev_target)
        self._height = float(object_pose(self._env)[2])

    def save(self) -> Moment:
        """The present moment of the episode."""
        env = self._env
        physics = np.empty(mujoco.mj_stateSize(env.model, _STATE))
        mujoco.mj_getState(env.model, env.data, physics, _STATE)
        return Moment(
            physics,
            {name: getattr(env.model, name).copy() for name in _PER_EPISODE},
            {name: _copied(value) for name, value in vars(env).items()},
            {"_target": self._target, "_height": self._height, "_info": self._info},
            self._look.view,
        )

    def load(self, moment: Moment) -> None:
        """Be where the world was at `moment`, whatever was played since."""
        env = self._env
        for name, values in moment.model.items():
            getattr(env.model, name)[:] = values
        vars(env).update({name: _copied(value) for name, value in moment.environment.items()})
        vars(self).update(moment.world)
        self._look.view = moment.view
        mujoco.mj_setState(env.model, env.data, moment.physics, _STATE)
        mujoco.mj_kinematics(env.model, env.data)
        mujoco.mj_camlight(env.model, env.data)

    def observe(self) -> Observation:
        images = self._renderer.render(self._env.data, self._look.view) if self._renderer else {}
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
    def stages(self) -> Stages:
        """What has been reached of the task in the present state."""
        info = self._info
        grasped = info["is_grasped"] > 0.5 if "is_grasped" in info else None
        raised = float(object_pose(self._env)[2]) - self._height > _LIFTED
        moved = info.get("is_moved")
        return Stages(
            distance=float(info["tcp_to_obj_dist"]),
            grasped=grasped,
            lifted=None if grasped is None else raised and grasped,
            moved=moved,
        )

    @property
    def limits(self) -> tuple[np.ndarray, np.ndarray]:
        """Least and greatest joint targets, each (6,): degrees, gripper 0..100."""
        low, high = (
            np.asarray(sim_qpos_to_dataset_row(bound), np.float32)
            for bound in (self._env._target_low, self._env._target_high)
        )
        low[5], high[5] = np.clip([low[5], high[5]], 0.0, 100.0)
        return low, high

    @property
    def instruction(self) -> str:
        """The present episode's task in words."""
        return str(self._env.task_description)

    def repaint(self, draw: np.random.Generator) -> None:
        """Give the present episode another look."""
        self._look.vary(draw)
        mujoco.mj_camlight(self._env.model, self._env.data)

    @property
    def places(self) -> list[np.ndarray]:
        """Where (3,) the object lies and, if the task has one, its goal; metres."""
        goal = goal_position(self._env)
        return [object_pose(self._env)[:3], *([] if goal is None else [goal])]

    @property
    def landmarks(self) -> np.ndarray:
        """(6, 3): the object and its goal on the table, metres; then both as the front camera and
        the wrist camera have them: column and row in 0..1 of the image, and depth in metres,
        negative behind the camera. NaN where there is no goal."""
        things = np.full((2, 3), np.nan)
        things[: len(self.places)] = self.places
        cameras = front_pose(self._look.view), self._wrist_pose()
        return np.concatenate([things, *(project(things, *camera) for camera in cameras)])

    def _wrist_pose(self) -> tuple[np.ndarray, np.ndarray, float]:
        data, camera = self._env.data, self._env._wrist_cam_id
        fovy = float(self._env.model.cam_fovy[camera])
        return data.cam_xpos[camera], data.cam_xmat[camera].reshape(3, 3), fovy

    @property
    def target(self) -> np.ndarray:
        """(6,) joint targets: degrees, gripper 0..100."""
        return np.asarray(sim_qpos_to_dataset_row(self._target), np.float64)

    @property
    def freedom(self) -> np.ndarray:
        """How much of a disturbance (6,) leaves the task possible: little close to the object, none
        of it for a hand that holds something."""
        height = self._arm.tip[2] - float(object_pose(self._env)[2])
        arm = np.clip(height / _FREE, _LEAST_FREEDOM, 1.0)
        return np.array([arm] * 5 + [0.0])

    def expert_actions(self, pace: float = 1.0) -> list[np.ndarray]:
        """The scripted expert's actions (6,) float32 from here on; or Unreachable.

        `pace` multiplies the usual speeds.
        """
        plan = experts.plan(self._env, self._arm, self._target, self.scene.task, self.fps, pace)
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


def _copied(value: Any) -> Any:
    """Arrays are written in place by the environment; everything else is bound anew."""
    return value.copy() if isinstance(value, np.ndarray) else value


def _substeps(fps: int, control_dt: float) -> int:
    """Control intervals per frame; fps has to divide the control rate (50 Hz)."""
    substeps = round(1 / (fps * control_dt))
    if substeps < 1 or abs(substeps * fps * control_dt - 1) > 1e-6:
        raise ValueError(f"fps = {fps} does not divide the control rate, {1 / control_dt:.0f} Hz")
    return substeps
