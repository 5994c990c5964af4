"""A client's local steps: SmolVLA's flow-matching loss plus FedProx's proximal term."""

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import lru_cache

import numpy as np
import torch
from lerobot.policies.smolvla.modeling_smolvla import SmolVLAPolicy

from zk0.errors import Zk0Error
from zk0.learning.batches import Batches, PooledBatches
from zk0.learning.device import device_of, upload
from zk0.learning.prefix import loss_from_prefix
from zk0.learning.scaffold import ControlVariates


@dataclass(frozen=True)
class LocalSteps:
    """A client's round: gradient steps, frames in each, AdamW's learning rate, FedProx's mu.

    The rate falls from `learning_rate` to `final_learning_rate` along half a cosine; None keeps it.
    """

    steps: int
    batch_size: int
    learning_rate: float
    proximal_mu: float
    final_learning_rate: float | None = None

    def rate(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        if self.final_learning_rate is None or self.steps == 1:
            return self.learning_rate
        share = (1 + math.cos(math.pi * step / (self.steps - 1))) / 2
        return self.final_learning_rate + share * (self.learning_rate - self.final_learning_rate)


@dataclass(frozen=True)
class LocalResult:
    """What the steps did: mean losses of all, the first and the last tenth, and their cost."""

    loss: float
    first_loss: float
    last_loss: float
    proximal_term: float
    update_norm: float
    steps: int
    seconds: float

    def to_metrics(self) -> dict[str, float]:
        """The numbers by their names in messages and in the record."""
        return {key.replace("_", "-"): value for key, value in asdict(self).items()}


def count_steps(frames: int, batch_size: int, local_epochs: int, local_steps: int) -> int:
    """Gradient steps in a round: `local_steps` where above 0, else whole passes over the frames."""
    return local_steps or local_epochs * -(-frames // batch_size)


def train(
    policy: SmolVLAPolicy,
    batches: Batches | PooledBatches,
    local: LocalSteps,
    seed: list[int],
    compiled: bool = False,
    variates: ControlVariates | None = None,
    optimizer: torch.optim.AdamW | None = None,
) -> LocalResult:
    """Train the policy's trainable parameters in place, from their present (global) values.

    AdamW and gradient clipping are as SmolVLA presets them; an `optimizer` (`build_optimizer`) goes
    on with its moments, else they begin anew. `seed` fixes data order, noise and flow times;
    SCAFFOLD's `variates` correct the gradients. Nothing in the loop waits for the device. Raises
    `Zk0Error` when the loss stops being finite.
    """
    loss_of = _compile_loss() if compiled else loss_from_prefix
    trainable = {name: p for name, p in policy.named_parameters() if p.requires_grad}
    parameters = list(trainable.values())
    anchors = [p.detach().clone() for p in parameters]
    optimizer = optimizer or build_optimizer(policy)
    max_norm = policy.config.get_optimizer_preset().grad_clip_norm
    order, generator = _shuffle(len(batches), local, seed), _torch_generator(seed)
    losses = []
    policy.train()
    start = time.perf_counter()
    for step, (batch, prefix) in enumerate(batches.stream(order)):
        noise, flow_times = draw_noise(policy, len(prefix.mask), generator)
        loss = loss_of(policy, prefix, batch, noise, flow_times)
        optimizer.zero_grad()
        loss.backward()
        if variates is not None:
            variates.correct(trainable)
        add_proximal_gradient(parameters, anchors, local.proximal_mu)
        torch.nn.utils.clip_grad_norm_(parameters, max_norm)
        optimizer.param_groups[0]["lr"] = local.rate(step)
        optimizer.step()
        losses.append(loss.detach())
    seconds = time.perf_counter() - start
    return _summarise(torch.stack(losses).cpu(), parameters, anchors, local, seconds)


@lru_cache(maxsize=1)
def _compile_loss() -> Callable[..., torch.Tensor]:
    """`loss_from_prefix` through `torch.compile`: kernels for the process's life, made once."""
    return torch.compile(loss_from_prefix)


def build_optimizer(policy: SmolVLAPolicy) -> torch.optim.AdamW:
    """The preset's AdamW for the trainable parameters, in its fused form."""
    preset = policy.config.get_optimizer_preset()
    return torch.optim.AdamW(
        [parameter for parameter in policy.parameters() if parameter.requires_grad],
        lr=preset.lr,
        betas=preset.betas,
        eps=preset.eps,
        weight_decay=preset.weight_decay,
        fused=True,
    )


@torch.no_grad()
def add_proximal_gradient(
    parameters: list[torch.nn.Parameter], anchors: list[torch.Tensor], mu: float
) -> None:
    """Add mu * (w - w_global) to the gradients: that of mu/2 * ||w - w_global||^2.

    FedProx, Li et al. 2020 (arXiv:1812.06127), equation 2.
    """
    moved = [
        (parameter, parameter.grad, anchor)
        for parameter, anchor in zip(parameters, anchors, strict=True)
        if mu and parameter.grad is not None
    ]
    if moved and moved[0][0].is_cuda:  # a kernel for all of them; on a CPU it only takes memory
        weights, gradients, starts = map(list, zip(*moved, strict=True))
        torch._foreach_add_(gradients, torch._foreach_sub(weights, starts), alpha=mu)
        return
    for parameter, gradient, anchor in moved:
        gradient.add_(parameter - anchor, alpha=mu)


def draw_noise(
    policy: SmolVLAPolicy, count: int, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """SmolVLA's noise (count, chunk, max action dim) and flow times (count,), from a generator.

    Times follow 0.001 + 0.999 * Beta(1.5, 1), as in `VLAFlowMatching.sample_time`; Beta(a, 1) is
    U^(1/a) by inversion of its distribution function x^a.
    """
    config, device = policy.config, device_of(policy)
    noise = torch.randn(count, config.chunk_size, config.max_action_dim, generator=generator)
    uniform = torch.rand(count, generator=generator)
    times = 0.001 + 0.999 * uniform ** (1 / 1.5)
    return upload(noise.numpy(), device), upload(times.numpy(), device)


def _shuffle(frames: int, local: LocalSteps, seed: list[int]) -> list[np.ndarray]:
    """The frames of every step: one permutation of all of them after the other."""
    rng = np.random.default_rng(seed)
    size = min(local.batch_size, frames)
    passes = -(-local.steps * size // frames)
    order = np.concatenate([rng.permutation(frames) for _ in range(passes)])
    return list(order[: local.steps * size].reshape(local.steps, size))


def _torch_generator(seed: list[int]) -> torch.Generator:
    state = np.random.SeedSequence(seed).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state >> np.uint64(1)))


def _summarise(
    losses: torch.Tensor,
    parameters: list[torch.nn.Parameter],
    anchors: list[torch.Tensor],
    local: LocalSteps,
    seconds: float,
) -> LocalResult:
    if not losses.isfinite().all():
        step = int((~losses.isfinite()).nonzero()[0]) + 1
        raise Zk0Error(
            f"the policy loss became {losses[step - 1]} at local step {step}: lower initial-lr "
            f"({local.learning_rate:g} was used) or look at the dataset."
        )
    distance = torch.stack(
        [(p.detach() - a).square().sum() for p, a in zip(parameters, anchors, strict=True)]
    ).sum()
    tenth = max(1, len(losses) // 10)
    return LocalResult(
        loss=losses.mean().item(),
        first_loss=losses[:tenth].mean().item(),
        last_loss=losses[-tenth:].mean().item(),
        proximal_term=local.proximal_mu / 2 * distance.item(),
        update_norm=distance.sqrt().item(),
        steps=local.steps,
        seconds=seconds,
    )
