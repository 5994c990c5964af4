"""Which OpenGL can MuJoCo use on this machine? Asked in a subprocess, because asking can crash.

MuJoCo reads `MUJOCO_GL` once, when it is imported, and a missing library shows as an obscure
AttributeError then. So: probe, set the variable, and only then import MuJoCo (`configure` does the
first two). Nothing heavy is imported here.
"""

import os
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Literal

Backend = Literal["egl", "osmesa"]

CANDIDATES: tuple[Backend, ...] = ("egl", "osmesa")
PACKAGES = "apt-get install libegl1 libgl1"

_PROBE = """
import mujoco
from OpenGL import GL
scene = '<mujoco><visual><headlight ambient="1 1 1"/></visual><worldbody>' \\
        '<geom size=".2" rgba="1 0 0 1"/><camera pos="0 0 2"/></worldbody></mujoco>'
model = mujoco.MjModel.from_xml_string(scene)
data = mujoco.MjData(model)
mujoco.mj_forward(model, data)
renderer = mujoco.Renderer(model, 64, 64)
renderer.update_scene(data, camera=0)
frame = renderer.render().astype(int)
red, green, blue = frame[32, 32]
assert red > 150 and green < 60 and blue < 60, f"no red ball in the middle: {frame[32, 32]}"
assert frame[0, 0].sum() < 60, f"no black corner: {frame[0, 0]}"
print("renderer:", GL.glGetString(GL.GL_RENDERER).decode())
"""


@dataclass(frozen=True)
class Choice:
    """What was found: a value for `MUJOCO_GL` (None: no OpenGL), the device, a line about it."""

    backend: Backend | None
    device: str
    message: str

    @property
    def renderer(self) -> Literal["opengl", "raycast"]:
        return "opengl" if self.backend else "raycast"

    @property
    def environment(self) -> dict[str, str]:
        """Variables under which MuJoCo can be imported and render as chosen."""
        return {"MUJOCO_GL": self.backend or "disable"}


@cache
def probe(candidates: tuple[str, ...] | None = None, timeout: float = 60.0) -> Choice:
    """The first candidate that renders a correct frame; the one in `MUJOCO_GL` is tried first."""
    failures = []
    for backend in _preferred_first(CANDIDATES if candidates is None else candidates):
        device, failure = _try(backend, timeout)
        if device:
            return Choice(backend, device, _praise(backend, device))  # type: ignore[arg-type]
        failures.append(f"{backend}: {failure}")
    return Choice(None, "", _lament(failures))


def configure() -> Choice:
    """Probe and set `MUJOCO_GL` for this process; call it before MuJoCo is imported."""
    choice = probe()
    os.environ.update(choice.environment)
    return choice


def _preferred_first(candidates: Iterable[str]) -> list[str]:
    wish = os.environ.get("MUJOCO_GL", "").strip().lower()
    return sorted(candidates, key=lambda backend: backend != wish)


def _try(backend: str, timeout: float) -> tuple[str, str]:
    """(device, "") where a frame came out right, else ("", why not)."""
    command = [sys.executable, "-c", _PROBE]
    variables = {**os.environ, "MUJOCO_GL": backend, "PYOPENGL_PLATFORM": backend}
    try:
        run = subprocess.run(
            command, env=variables, capture_output=True, text=True, timeout=timeout
        )
    except subprocess.TimeoutExpired:
        return "", f"no frame within {timeout:.0f} s"
    # Exit status is not looked at: some drivers crash on the way out, after a good frame.
    for line in run.stdout.splitlines():
        if line.startswith("renderer: "):
            return line.removeprefix("renderer: "), ""
    lines = run.stderr.strip().splitlines()
    return "", lines[-1] if lines else f"ended with status {run.returncode}"


def _praise(backend: str, device: str) -> str:
    if "nvidia" in device.lower():
        return f"rendering with OpenGL ({backend}) on the GPU: {device}"
    if backend == "osmesa":
        return f"rendering with OpenGL (osmesa) on the CPU; EGL is usually faster: {PACKAGES}"
    return f"rendering with OpenGL ({backend}) on {device}"


def _lament(failures: list[str]) -> str:
    if any("No module named" in failure for failure in failures):
        return "MuJoCo is not installed, nothing can be rendered: pip install 'zk0[sim]'"
    reasons = "; ".join(failures)
    return f"no OpenGL, rendering by ray casting, some twenty times slower; {PACKAGES} ({reasons})"
