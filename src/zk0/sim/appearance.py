"""What things look like in an episode: paint, lamps and where the cameras are."""

import mujoco
import numpy as np

from zk0.sim.recipes import Variety, View
from zk0.sim.tasks import Environment

_VARIED = ("geom_rgba", "mat_rgba", "light_diffuse", "light_dir", "cam_quat")
_WRIST = "wrist_cam"


class Appearance:
    """A scene's usual look, to vary from: what is seen changes, what happens does not."""

    def __init__(self, env: Environment, view: View, variety: Variety) -> None:
        self._model, self._usual_view, self._variety = env.model, view, variety
        self._scenery = [i for i in range(env.model.ngeom) if _lies_about(env.model.geom(i).name)]
        self._robot = np.array(env._robot_material_ids)
        self._usual = self._present()
        self.view = view

    def restore(self) -> None:
        """The usual look, before the environment draws an episode's colours."""
        for name, values in self._usual.items():
            getattr(self._model, name)[:] = values
        self.view = self._usual_view

    def remember(self) -> None:
        """Take the present colours for those of the episode."""
        self._episode = self._present()

    def vary(self, draw: np.random.Generator) -> None:
        """Another look of the present episode."""
        if self._variety.paint:
            self._paint(draw)
            self._light(draw)
        if self._variety.camera:
            self._turn_wrist_camera(draw)
            self._move_front_camera(draw)

    def _present(self) -> dict[str, np.ndarray]:
        return {name: getattr(self._model, name).copy() for name in _VARIED}

    def _paint(self, draw: np.random.Generator) -> None:
        model, amount = self._model, self._variety.paint
        for index in self._scenery:
            spread = amount * (0.6 if model.geom(index).name == "floor" else 0.3)
            usual = self._episode["geom_rgba"][index, :3]
            model.geom_rgba[index, :3] = _shade(usual, spread, draw)
        plastic = self._episode["mat_rgba"][self._robot[0], :3]
        model.mat_rgba[self._robot, :3] = _shade(plastic, 0.6 * amount, draw)

    def _light(self, draw: np.random.Generator) -> None:
        model, amount = self._model, self._variety.paint
        brightness = 1 + 0.5 * amount * draw.uniform(-1, 1, (model.nlight, 1))
        model.light_diffuse[:] = self._usual["light_diffuse"] * brightness
        tilted = self._usual["light_dir"] + 0.4 * amount * draw.uniform(-1, 1, (model.nlight, 3))
        model.light_dir[:] = tilted / np.linalg.norm(tilted, axis=1, keepdims=True)

    def _turn_wrist_camera(self, draw: np.random.Generator) -> None:
        camera = self._model.camera(_WRIST).id
        turn, turned = np.zeros(4), np.zeros(4)
        degrees = self._variety.camera * draw.uniform(-1, 1, 3)
        mujoco.mju_euler2Quat(turn, np.radians(degrees), "xyz")
        mujoco.mju_mulQuat(turned, self._usual["cam_quat"][camera], turn)
        self._model.cam_quat[camera] = turned

    def _move_front_camera(self, draw: np.random.Generator) -> None:
        usual, amount = self._usual_view, self._variety.camera
        x, y, z = np.array(usual.lookat) + 0.01 * amount * draw.uniform(-1, 1, 3)
        self.view = View(
            lookat=(float(x), float(y), float(z)),
            distance=usual.distance + 0.01 * amount * draw.uniform(-1, 1),
            elevation=usual.elevation + amount * draw.uniform(-1, 1),
            azimuth=usual.azimuth + amount * draw.uniform(-1, 1),
        )


def _lies_about(name: str) -> bool:
    """The table and what is on it."""
    return name in ("floor", "target_disc") or "slot" in name or "cube" in name


def _shade(colour: np.ndarray, spread: float, draw: np.random.Generator) -> np.ndarray:
    """A colour (3,) brighter or darker and, half as much, of another hue."""
    return np.clip(colour + spread * (draw.uniform(-1, 1) + 0.5 * draw.uniform(-1, 1, 3)), 0, 1)
