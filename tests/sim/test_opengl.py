"""The probe finds what renders, says what is missing, and costs no imports."""

import subprocess
import sys

import pytest

from zk0.sim import opengl


def test_what_it_finds_is_named(choice: opengl.Choice) -> None:
    assert choice.backend in (*opengl.CANDIDATES, None)
    assert (choice.backend or "no OpenGL") in choice.message
    assert "\n" not in choice.message
    assert choice.environment == {"MUJOCO_GL": choice.backend or "disable"}


def test_nothing_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opengl, "CANDIDATES", ("no-such-backend",))
    opengl.probe.cache_clear()
    found = opengl.probe()
    opengl.probe.cache_clear()
    assert found.backend is None
    assert found.renderer == "raycast"
    assert "apt-get install libegl1 libgl1" in found.message
    assert "ray casting" in found.message


def test_a_driver_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opengl, "_PROBE", "import time; time.sleep(60)")
    found = opengl.probe(("egl",), timeout=0.5)
    assert found.backend is None
    assert "no frame within" in found.message


def test_a_wrong_picture_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opengl, "_PROBE", "assert False, 'no red ball in the middle'")
    assert "no red ball" in opengl.probe(("osmesa",)).message


def test_a_graphics_card_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opengl, "_PROBE", "print('renderer: NVIDIA L4/PCIe/SSE2')")
    found = opengl.probe(("egl", "osmesa"), timeout=30)
    assert found.backend == "egl"
    assert "on the GPU: NVIDIA L4" in found.message


def test_the_wish_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUJOCO_GL", "osmesa")
    assert opengl._preferred_first(("egl", "osmesa")) == ["osmesa", "egl"]


def test_imports_are_light() -> None:
    code = (
        "import zk0.sim, zk0.sim.opengl, zk0.sim.recipes, zk0.sim.demonstrations, sys;"
        "heavy = {'mujoco', 'numpy', 'torch', 'lerobot', 'so101_nexus'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
