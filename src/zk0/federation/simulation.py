"""What Flower's simulation lacks: a client process that dies is replaced."""

import sys
from typing import Any


def heal_actor_pool() -> None:
    """From now on, put a new Ray actor in the place of a dead one.

    Flower 1.41 puts a killed actor back into its pool, where it is the next to be chosen: every
    message after that fails at once. The simulation runs in the process of the ServerApp, so that
    its pool can be reached from here, once clients have answered: the two start side by side. Does
    nothing in a deployment.
    """
    module: Any = sys.modules.get("flwr.simulation.ray_transport.ray_actor")
    if module is not None:
        module.BasicActorPool.add_actor_back_to_pool = _return_actor


def _return_actor(pool: Any, future: Any) -> None:
    import ray
    from ray.exceptions import RayActorError

    actor = pool._future_to_actor.pop(future)
    try:
        ray.get(actor.__ray_ready__.remote())
    except RayActorError:
        actor = pool.create_actor_fn()
    pool.pool.append(actor)
