"""Fewer triangles for what cameras see of a model.

Software OpenGL is bound by geometry: the robot's 401 k triangles take 300 ms a frame, the 14 k left
here 4 ms. Meshes used for collisions are left alone, so physics does not change.
"""

import mujoco
import numpy as np

CELL = 0.004  # metres
FLOOR = 3.0  # half its edge, metres: farther than any camera sees


def lighten(model: mujoco.MjModel) -> None:
    """Make `model` cheap to draw, in place."""
    decimate_visual_meshes(model)
    coarsen_floor(model)


def coarsen_floor(model: mujoco.MjModel) -> None:
    """Draw the floor as 60 x 60 squares, not 200 x 200; it still collides as an infinite plane."""
    floor = model.geom_type == mujoco.mjtGeom.mjGEOM_PLANE
    model.geom_size[floor] = (FLOOR, FLOOR, FLOOR / 30)


def decimate_visual_meshes(model: mujoco.MjModel, cell: float = CELL) -> None:
    """Merge, in place, the vertices of each visual mesh that share a cube of edge `cell`."""
    colliding = _colliding_meshes(model)
    for mesh in range(model.nmesh):
        if mesh not in colliding:
            _decimate(model, mesh, cell)


def _colliding_meshes(model: mujoco.MjModel) -> set[int]:
    is_mesh = model.geom_type == mujoco.mjtGeom.mjGEOM_MESH
    collides = (model.geom_contype != 0) | (model.geom_conaffinity != 0)
    return set(model.geom_dataid[is_mesh & collides].tolist())


def _decimate(model: mujoco.MjModel, mesh: int, cell: float) -> None:
    vertex, face = model.mesh_vertadr[mesh], model.mesh_faceadr[mesh]
    vertices = model.mesh_vert[vertex : vertex + model.mesh_vertnum[mesh]]
    span = slice(face, face + model.mesh_facenum[mesh])
    faces = _representatives(vertices, cell)[model.mesh_face[span]]
    kept = _distinct_triangles(faces)
    # The shorter list goes where the longer one was; what lies behind it is no longer read.
    model.mesh_face[face : face + len(kept)] = faces[kept]
    model.mesh_facenormal[face : face + len(kept)] = model.mesh_facenormal[span][kept]
    model.mesh_facenum[mesh] = len(kept)


def _representatives(vertices: np.ndarray, cell: float) -> np.ndarray:
    """For each vertex the index of the one nearest to the mean of its cell; (n, 3) -> (n,)."""
    _, cells = np.unique(np.floor(vertices / cell).astype(np.int64), axis=0, return_inverse=True)
    cells = cells.ravel()
    sums = np.stack([np.bincount(cells, axis) for axis in vertices.T], axis=1)
    means = sums / np.bincount(cells)[:, None]
    distance = ((vertices - means[cells]) ** 2).sum(axis=1)
    by_cell = np.lexsort((distance, cells))
    first = np.searchsorted(cells[by_cell], np.arange(len(means)))
    return by_cell[first][cells]


def _distinct_triangles(faces: np.ndarray) -> np.ndarray:
    """Indices of the faces (n, 3) that have three different corners, each set of corners once."""
    a, b, c = faces.T
    proper = np.flatnonzero((a != b) & (b != c) & (a != c))
    _, once = np.unique(np.sort(faces[proper], axis=1), axis=0, return_index=True)
    return proper[once]
