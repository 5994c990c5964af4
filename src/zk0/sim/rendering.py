"""Camera images of the world: with OpenGL, or by casting rays where there is none."""

import os
from typing import Literal, Protocol

import mujoco
import numpy as np

from zk0.sim.meshes import lighten
from zk0.sim.recipes import View

CAMERAS = ("front", "wrist")
Images = dict[str, np.ndarray]  # camera -> (height, width, 3) uint8
RendererName = Literal["opengl", "raycast"]

_WRIST = "wrist_cam"  # the robot model's own camera
_FRONT_FOVY = 45.0  # degrees: of every free camera in MuJoCo, unless a model says otherwise
_SUPERSAMPLING = 2  # cheaper than multisampling in software OpenGL, and looks the same


class Renderer(Protocol):
    """Draws all cameras of one model at one size."""

    def render(self, data: mujoco.MjData, front: View) -> Images: ...

    def close(self) -> None: ...


def renderer(name: RendererName, model: mujoco.MjModel, size: int) -> Renderer:
    """The renderer of that name for `size` x `size` images; it may lighten the model's meshes."""
    return OpenGL(model, size) if name == "opengl" else RayCaster(model, size)


def available() -> RendererName:
    """What this process can use: OpenGL where `MUJOCO_GL` names it, else ray casting."""
    return "opengl" if os.environ.get("MUJOCO_GL", "") in ("egl", "osmesa") else "raycast"


def front_camera(view: View) -> mujoco.MjvCamera:
    camera = mujoco.MjvCamera()
    camera.lookat[:] = view.lookat
    camera.distance = view.distance
    camera.elevation, camera.azimuth = view.elevation, view.azimuth
    return camera


class OpenGL:
    """Decimated meshes, no shadows, no reflections, twofold supersampling.

    One at a time: freeing an EGL context frees names in whichever context is current, so a second
    live renderer gets garbage frames and no error. `close` makes its own context current first.
    """

    _live: "OpenGL | None" = None

    def __init__(self, model: mujoco.MjModel, size: int) -> None:
        if OpenGL._live is not None:
            raise RuntimeError("close the other world first: one OpenGL renderer can be live")
        lighten(model)
        pixels = size * _SUPERSAMPLING
        model.vis.quality.offsamples = 0
        model.vis.quality.shadowsize = 1024
        model.vis.global_.offwidth = model.vis.global_.offheight = pixels
        self._renderer = mujoco.Renderer(model, height=pixels, width=pixels)
        self._renderer.scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = False
        self._renderer.scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = False
        OpenGL._live = self

    def render(self, data: mujoco.MjData, front: View) -> Images:
        cameras = {"front": front_camera(front), "wrist": _WRIST}
        return {name: self._draw(data, camera) for name, camera in cameras.items()}

    def _draw(self, data: mujoco.MjData, camera: mujoco.MjvCamera | str) -> np.ndarray:
        self._renderer.update_scene(data, camera=camera)
        return _halve(self._renderer.render())

    def close(self) -> None:
        if OpenGL._live is not self:
            return
        OpenGL._live = None
        if self._renderer._gl_context is not None:
            self._renderer._gl_context.make_current()
        self._renderer.close()


def _halve(image: np.ndarray) -> np.ndarray:
    """Mean of each 2 x 2 block: (2h, 2w, 3) -> (h, w, 3) uint8, rounded."""
    total = image[0::2, 0::2].astype(np.uint16)
    for row, column in ((0, 1), (1, 0), (1, 1)):
        total += image[row::2, column::2]
    return ((total + 2) >> 2).astype(np.uint8)


class RayCaster:
    """One ray a pixel on the CPU, lit as the scene's lamps light it. Needs no graphics library."""

    _VISIBLE_GROUPS = np.array([1, 1, 1, 0, 0, 0], dtype=np.uint8)  # as OpenGL draws by default
    _AMBIENT, _LAMP, _FILL = 0.3, 0.5, 0.5
    _TO_LAMP = np.array([0.227, 0.268, 0.936])
    _FARTHEST = 10.0  # metres

    def __init__(self, model: mujoco.MjModel, size: int) -> None:
        self._model, self._size = model, size
        self._wrist = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_CAMERA, _WRIST)

    def render(self, data: mujoco.MjData, front: View) -> Images:
        ahead = self._draw(data, *front_pose(front))
        position, axes = data.cam_xpos[self._wrist], data.cam_xmat[self._wrist].reshape(3, 3)
        wrist = self._draw(data, position, axes, float(self._model.cam_fovy[self._wrist]))
        return {"front": ahead, "wrist": wrist}

    def _draw(
        self, data: mujoco.MjData, position: np.ndarray, axes: np.ndarray, fovy: float
    ) -> np.ndarray:
        rays = _pixel_rays(self._size, fovy) @ axes.T
        geoms, normals = self._cast(data, position, rays)
        colours = np.where(geoms[:, None] >= 0, self._colours(geoms), 0.0)
        shaded = np.clip(colours * self._light(normals)[:, None], 0, 1) * 255
        return shaded.astype(np.uint8).reshape(self._size, self._size, 3)

    def _cast(
        self, data: mujoco.MjData, position: np.ndarray, rays: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """The geom each ray (n, 3) meets first, -1 for none, and the surface normals (n, 3)."""
        count = len(rays)
        geoms, distances = np.full(count, -1, np.int32), np.zeros(count)
        normals = np.zeros((count * 3, 1))
        directions = np.ascontiguousarray(rays).reshape(-1, 1)
        mujoco.mj_multiRay(
            self._model,
            data,
            np.asarray(position).reshape(3, 1),
            directions,
            self._VISIBLE_GROUPS,
            1,  # static geoms too
            -1,  # exclude no body
            geoms,
            distances,
            normals,
            count,
            self._FARTHEST,
        )
        return geoms, normals.reshape(-1, 3)

    def _colours(self, geoms: np.ndarray) -> np.ndarray:
        """RGB (n, 3) in 0..1 of the geoms' materials, or their own where they have none."""
        material = self._model.geom_matid[geoms]
        own, shared = self._model.geom_rgba[geoms], self._model.mat_rgba[material]
        return np.where(material[:, None] >= 0, shared, own)[:, :3]

    def _light(self, normals: np.ndarray) -> np.ndarray:
        lamp = self._LAMP * np.clip(normals @ self._TO_LAMP, 0, 1)
        return self._AMBIENT + lamp + self._FILL * np.clip(normals[:, 2], 0, 1)

    def close(self) -> None:
        """Nothing is held."""


def front_pose(view: View) -> tuple[np.ndarray, np.ndarray, float]:
    """Position (3,), axes (3, 3; columns right, up, backwards) and angle of view of the camera."""
    azimuth, elevation = np.radians([view.azimuth, view.elevation])
    level = np.array([np.cos(azimuth), np.sin(azimuth), 0.0])
    forward = np.cos(elevation) * level + np.array([0.0, 0.0, np.sin(elevation)])
    right = np.array([np.sin(azimuth), -np.cos(azimuth), 0.0])
    axes = np.stack([right, np.cross(right, forward), -forward], axis=1)
    return np.array(view.lookat) - view.distance * forward, axes, _FRONT_FOVY


def project(points: np.ndarray, position: np.ndarray, axes: np.ndarray, fovy: float) -> np.ndarray:
    """Where a camera has points (n, 3): (n, 3) of column and row in 0..1 of its square image, and
    depth in metres."""
    right, up, back = ((points - position) @ axes).T
    edge = np.tan(np.radians(fovy) / 2) * -back
    return np.stack([(1 + right / edge) / 2, (1 - up / edge) / 2, -back], 1)


def _pixel_rays(size: int, fovy: float) -> np.ndarray:
    """Unit directions (size * size, 3) through pixel centres in the camera's own axes."""
    edge = np.tan(np.radians(fovy) / 2)
    centres = (np.arange(size) + 0.5) / size * 2 - 1
    x, y = np.meshgrid(centres * edge, -centres * edge)
    rays = np.stack([x, y, -np.ones_like(x)], axis=-1).reshape(-1, 3)
    return rays / np.linalg.norm(rays, axis=1, keepdims=True)
