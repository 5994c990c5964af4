"""What a policy would have done in a recorded episode, beside what was done."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from lerobot.policies.smolvla.modeling_smolvla import SmolVLAPolicy
from numpy.typing import NDArray

from zk0.ahead import one_ahead
from zk0.evaluation.policy_loss import NOISE_SEED
from zk0.learning.batches import Batches
from zk0.learning.prefix import predict_action_chunk
from zk0.learning.training import draw_noise
from zk0.record.drawing import OpenLoopDrawing
from zk0.record.videos import VideoFacts, save_facts, smoothness, write_video


@dataclass(frozen=True, eq=False)
class OpenLoop:
    """One episode: actions (frames, action dim) in degrees, the gripper in percent."""

    episode: int
    rows: NDArray[np.int64]  # of the dataset
    recorded: NDArray[np.float32]
    predicted: NDArray[np.float32]  # every `chunk` frames from that frame's observation
    chunk: int


@torch.no_grad()
def predict_episode(policy: SmolVLAPolicy, batches: Batches, episode: int) -> OpenLoop:
    """Predict an episode of the view as the robot would be driven: a chunk from every
    `n_action_steps`-th recorded observation."""
    frames, chunk = batches.frames, policy.config.n_action_steps
    positions = np.flatnonzero(frames.episodes[frames.selection] == episode)
    starts = positions[::chunk]
    noise, _ = draw_noise(policy, len(starts), torch.Generator().manual_seed(NOISE_SEED))
    batch, prefix = batches.take(starts)
    actions = predict_action_chunk(policy.eval(), prefix, batch, noise)[:, :chunk]
    actions = (actions * batches.action_scale + batches.action_offset).flatten(0, 1)
    rows = frames.selection[positions]
    predicted = actions[: len(rows)].float().cpu().numpy()
    return OpenLoop(episode, rows, frames.actions[rows], predicted, chunk)


def film(
    open_loop: OpenLoop, batches: Batches, folder: Path, who: str, server_round: int, loss: float
) -> Path:
    """Write `rollout_episode_N.mp4` and its JSON to `folder`."""
    frames, rows = batches.frames, open_loop.rows
    task = str(frames.tasks[rows[0]])
    images = {camera: frames.videos.decode(camera, rows) for camera in frames.videos.cameras}
    shown = [{name: pixels[at] for name, pixels in images.items()} for at in range(len(rows))]
    drawing = OpenLoopDrawing(
        shown[0], task, open_loop.recorded, open_loop.predicted, open_loop.chunk, frames.fps
    )
    video = folder / f"rollout_episode_{open_loop.episode}.mp4"
    pictures = one_ahead(lambda at: drawing.draw(shown[at], at), range(len(shown)))
    write_video(video, pictures, frames.fps)
    error = np.abs(open_loop.predicted - open_loop.recorded).mean(0, dtype=np.float64)
    facts = VideoFacts(
        who=who,
        round=server_round,
        kind="open-loop",
        task=frames.slug,
        instruction=task,
        seed=None,
        episode=open_loop.episode,
        success=None,
        frames=len(rows),
        fps=frames.fps,
        seconds=len(rows) / frames.fps,
        smoothness=smoothness(open_loop.predicted, frames.fps),
        policy_loss=loss,
        action_error=dict(zip(frames.joints, error.tolist(), strict=True)),
    )
    save_facts(video, facts)
    return video
