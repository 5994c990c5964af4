"""Where things are, read off what the backbone makes of a frame: a second task beside acting.

It tells vision and language directly what the error of an action tells them in many steps only. The
heads are thrown away after pre-training. Landmarks are (n, 6, 3) as `World.landmarks` has them:
two things, the object and its goal, on the table and in either camera.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from lerobot.policies.smolvla.modeling_smolvla import SmolVLAPolicy
from torch import Tensor, nn

from zk0.learning.prefix import ImageTokens, Prefix

THINGS = 2
_HIDDEN = 256
_QUERIES = 4
_CENTRE, _SPREAD = (0.2, 0.0, 0.03), (0.05, 0.05, 0.02)  # metres, of things on the table
_CLOSEST = 0.02  # metres before a camera
_DEPTH = 0.2  # metres that count as one
_BETA = 0.1  # where the error turns from quadratic to linear: 5 mm on the table


@dataclass(frozen=True)
class Seen:
    """A camera's view: which of its tokens sees a thing (n, tokens, things), and where in that
    token's field, and how deep, it is (n, tokens, things, 3)."""

    scores: Tensor
    places: Tensor


class LandmarkHeads(nn.Module):
    """Things from each camera's tokens one by one, from all of the front camera's together, and
    from the keys and values that an action expert reads."""

    def __init__(self, policy: SmolVLAPolicy) -> None:
        super().__init__()
        config = policy.model.vlm_with_expert.config
        text, vision = config.text_config, config.vision_config
        patches = (vision.image_size // vision.patch_size) ** 2
        tokens = patches // config.scale_factor**2
        width = text.num_key_value_heads * text.head_dim * text.num_hidden_layers
        self.front, self.wrist = (_head(text.hidden_size, THINGS * 4) for _ in range(2))
        self.place = _head(tokens * text.hidden_size, THINGS * 3)
        self.queries = nn.Parameter(torch.randn(_QUERIES, width) * 0.02)
        self.mix = nn.Linear(width, _HIDDEN)
        state = policy.config.robot_state_feature.shape[0]
        self.read = _head(_QUERIES * _HIDDEN + state, THINGS * 3)

    def see(self, images: ImageTokens) -> tuple[Seen, Seen]:
        """By the front camera and by the wrist's."""
        views = zip((self.front, self.wrist), images.embeddings.unbind(1), strict=True)
        read = [head(tokens).unflatten(-1, (THINGS, 4)) for head, tokens in views]
        front, wrist = (Seen(each[..., 0], each[..., 1:]) for each in read)
        return front, wrist

    def locate(self, images: ImageTokens) -> Tensor:
        """Things on the table (n, things, 3) by the front camera."""
        return self.place(images.embeddings[:, 0].flatten(1)).unflatten(-1, (THINGS, 3))

    def listen(self, prefix: Prefix, state: Tensor) -> Tensor:
        """The instruction's things on the table (n, things, 3)."""
        keys, values = prefix.keys_values.permute(2, 0, 3, 1, 4, 5).flatten(3)  # (n, tokens, width)
        scores = (self.queries @ keys.transpose(1, 2)).masked_fill(~prefix.mask[:, None], -1e9)
        heard = (scores.softmax(-1) @ self.mix(values)).flatten(1)
        return self.read(torch.cat([heard, state], 1)).unflatten(-1, (THINGS, 3))


def _head(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, _HIDDEN), nn.GELU(), nn.Linear(_HIDDEN, outputs))


def on_the_table(landmarks: Tensor) -> Tensor:
    """What `locate` and `listen` are to give, NaN where there is no such thing."""
    return (landmarks[:, :THINGS] - landmarks.new_tensor(_CENTRE)) / landmarks.new_tensor(_SPREAD)


def in_camera(landmarks: Tensor, camera: int) -> Tensor:
    """(n, things, 3): column, row and depth of what is in the camera's view, else NaN."""
    found = landmarks[:, THINGS * (1 + camera) : THINGS * (2 + camera)]
    column, row, depth = found.unbind(-1)
    inside = (column >= 0) & (column < 1) & (row >= 0) & (row < 1) & (depth > _CLOSEST)
    return found.where(inside[..., None], torch.nan)


def hide_the_object(wanted: Tensor, crowded: Tensor) -> Tensor:
    """The same without the object where others lie about: which one it is, the words say alone."""
    hidden = crowded[:, None] & (torch.arange(THINGS, device=crowded.device) == 0)
    return wanted.masked_fill(hidden[..., None], torch.nan)


def place_loss(predicted: Tensor, wanted: Tensor) -> Tensor:
    """Mean Huber loss over what there is."""
    there = torch.isfinite(wanted)
    losses = F.smooth_l1_loss(predicted, wanted.nan_to_num(), reduction="none", beta=_BETA)
    return losses[there].sum() / there.sum().clamp_min(1)


def view_loss(seen: Seen, wanted: Tensor) -> Tensor:
    """Of `in_camera` things: cross entropy over the tokens that may see one, and the Huber loss of
    the place within that token's field."""
    side = round(seen.scores.shape[1] ** 0.5)
    there = torch.isfinite(wanted[..., 0])
    if not there.any():
        return seen.scores.sum() * 0
    column, row, depth = wanted.nan_to_num().unbind(-1)
    across, down = column * side, row * side
    token = (down.long() * side + across.long()).clamp(0, side**2 - 1)
    index = token[:, None, :, None].expand(-1, 1, -1, 3)
    places = seen.places.gather(1, index)[:, 0]
    inner = torch.stack([across.frac(), down.frac(), depth / _DEPTH], -1)
    missed = F.cross_entropy(seen.scores, token, reduction="none")  # (n, things)
    beside = F.smooth_l1_loss(places, inner, reduction="none", beta=_BETA).sum(-1)
    return (missed + beside)[there].mean()


def hits(seen: Seen, wanted: Tensor) -> float:
    """Share of the things in view that the right token sees; NaN where none is in view."""
    side = round(seen.scores.shape[1] ** 0.5)
    there = torch.isfinite(wanted[..., 0])
    column, row, _ = wanted.nan_to_num().unbind(-1)
    token = (row * side).long() * side + (column * side).long()
    return (seen.scores.argmax(1) == token)[there].float().mean().item()


def error_in_centimetres(predicted: Tensor, wanted: Tensor) -> float:
    """Mean distance of the predicted object from where it is, along the table."""
    offset = (predicted - wanted)[:, 0, :2] * predicted.new_tensor(_SPREAD[:2])
    return 100 * offset.norm(dim=1).nanmean().item()
