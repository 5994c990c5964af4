"""The base policy trained whole: first where things are, then how to act on it."""

import json
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lerobot.policies.smolvla.modeling_smolvla import SmolVLAPolicy
from lerobot.utils.constants import OBS_LANGUAGE_ATTENTION_MASK, OBS_LANGUAGE_TOKENS
from loguru import logger
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from zk0.ahead import one_ahead
from zk0.data.statistics import ACTION, STATE, Moments
from zk0.errors import Zk0Error
from zk0.learning.backbone import WORDS
from zk0.learning.device import device_of, upload
from zk0.learning.policy import EMBEDDED_CAMERAS, make_processors
from zk0.learning.prefix import embed_images, flow_losses, mean_loss, read_prefix
from zk0.learning.training import draw_noise
from zk0.pretraining.landmarks import (
    LandmarkHeads,
    error_in_centimetres,
    hide_the_object,
    hits,
    in_camera,
    on_the_table,
    place_loss,
    view_loss,
)
from zk0.pretraining.samples import CAMERAS, Samples
from zk0.pretraining.scenes import COLOURS

STATE_FILE, LOG = "state.safetensors", "log.jsonl"
_HELD_OUT = 40  # one episode in so many
_JUDGED = 512  # held-out samples
_CLIP = 1.0
_MOMENTS = ("exp_avg", "exp_avg_sq", "step")  # of AdamW


@dataclass(frozen=True)
class Course:
    """How long each half of pre-training takes, in gradient steps, and how."""

    look_steps: int = 2500
    act_steps: int = 9500
    batch_size: int = 32
    learning_rate: float = 1e-3
    warm_up: int = 200
    renamings: int = 20  # wordings of each instruction with other words for its colours' names
    renamed: float = 0.5  # share of the samples that have one of them
    log_every: int = 250
    seed: int = 0

    @property
    def steps(self) -> int:
        return self.look_steps + self.act_steps

    def acts(self, step: int) -> bool:
        return step >= self.look_steps

    def rate(self, step: int) -> float:
        """Linear warm-up, then half a cosine to a fiftieth, in each half anew."""
        if self.acts(step):
            done, steps = step - self.look_steps, self.act_steps
        else:
            done, steps = step, self.look_steps
        falling = 0.02 + 0.98 * (1 + math.cos(math.pi * done / steps)) / 2
        return self.learning_rate * min(1.0, (done + 1) / self.warm_up) * falling


class Pretraining:
    """The policy and its landmark heads, trained step by step; state and log live in `folder`."""

    def __init__(
        self, policy: SmolVLAPolicy, samples: Samples, course: Course, folder: Path
    ) -> None:
        self.policy, self.samples, self.course, self.folder = policy, samples, course, folder
        for parameter in policy.parameters():
            parameter.requires_grad = True
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(course.seed)
            self.heads = LandmarkHeads(policy).to(device_of(policy))
        self.statistics = {
            STATE: Moments.of(samples.states),
            ACTION: Moments.of(samples.actions[:, 0]),
        }
        self.columns = self._columns()
        episodes = np.unique(samples.episode)
        held_out = np.isin(samples.episode, episodes[::_HELD_OUT])
        self.training, self.judged = np.flatnonzero(~held_out), np.flatnonzero(held_out)
        self.optimizer = torch.optim.AdamW(
            [*policy.parameters(), *self.heads.parameters()],
            betas=(0.9, 0.98),
            weight_decay=1e-4,
            fused=True,
        )
        self.step = 0

    def run(self) -> None:
        """To the course's end, from where the folder's state is."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._resume()
        self.policy.train()
        losses, since = [], time.perf_counter()
        for indices, images in one_ahead(self._fetch, self._order()):
            losses.append(self.take_step(indices, images))
            self.step += 1
            if self.step % self.course.log_every == 0 or self.step == self.course.steps:
                self._log(losses, time.perf_counter() - since)
                losses, since = [], time.perf_counter()
                self._save()

    def _order(self) -> Iterator[NDArray[np.int64]]:
        """The samples of each step that is left: they depend on its number only."""
        for step in range(self.step, self.course.steps):
            draw = np.random.default_rng([self.course.seed, step])
            yield draw.choice(self.training, self.course.batch_size)

    def _fetch(self, indices: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
        return indices, self.samples.frames(indices)

    def take_step(self, indices: NDArray[np.int64], images: NDArray[np.uint8]) -> Tensor:
        """One gradient step of `self.step`'s half; the loss before it."""
        generator = torch.Generator().manual_seed(self.course.seed + self.step)
        acts = self.course.acts(self.step)
        losses, _ = self._losses(indices, images, generator, acts, augmented=True)
        loss = torch.stack(list(losses.values())).sum()
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.optimizer.param_groups[0]["params"], _CLIP)
        self.optimizer.param_groups[0]["lr"] = self.course.rate(self.step)
        self.optimizer.step()
        return loss.detach()

    def _losses(
        self,
        indices: NDArray[np.int64],
        images: NDArray[np.uint8],
        generator: torch.Generator,
        acts: bool,
        augmented: bool,
    ) -> tuple[dict[str, Tensor], dict[str, float]]:
        """What is minimised, and how well the landmarks are known, by name."""
        batch = self._batch(indices, images, generator if augmented else None)
        device = device_of(self.policy)
        things = upload(self.samples.landmarks[indices], device)
        crowded = upload(self.samples.crowded[indices], device)
        tokens = embed_images(self.policy, batch)
        losses, found = {}, {}
        for camera, (name, seen) in enumerate(zip(CAMERAS, self.heads.see(tokens), strict=True)):
            wanted = hide_the_object(in_camera(things, camera), crowded)
            losses[name], found[f"{name}_hits"] = view_loss(seen, wanted), hits(seen, wanted)
        placed, table = self.heads.locate(tokens), on_the_table(things)
        alone = hide_the_object(table, crowded)
        losses["place"] = place_loss(placed, alone)
        found["place_cm"] = error_in_centimetres(placed, alone)
        if acts:
            prefix = read_prefix(self.policy, tokens, batch)
            heard = self.heads.listen(prefix, batch[STATE])
            losses["heard"] = place_loss(heard, table)
            found["heard_cm"] = error_in_centimetres(heard, table)
            noise, times = draw_noise(self.policy, len(indices), generator)
            flow = flow_losses(self.policy, prefix, batch, noise, times)
            losses["policy_loss"] = mean_loss(flow, batch[f"{ACTION}_is_pad"])
        return losses, found

    def _columns(self) -> dict[str, Tensor]:
        """All samples' states, actions and words as lerobot's processor gives them, on the CPU."""
        preprocess, _ = make_processors(self.policy, self.statistics)
        count, chunk, joints = self.samples.actions.shape
        words = preprocess({STATE: torch.zeros(1, joints), "task": self._wordings()})
        numbers = preprocess(
            {
                STATE: torch.from_numpy(self.samples.states),
                ACTION: torch.from_numpy(self.samples.actions),
                "task": [""],
            }
        )
        columns = {
            STATE: numbers[STATE],
            ACTION: numbers[ACTION].view(count, chunk, joints),
            OBS_LANGUAGE_TOKENS: words[OBS_LANGUAGE_TOKENS],
            OBS_LANGUAGE_ATTENTION_MASK: words[OBS_LANGUAGE_ATTENTION_MASK],
        }
        return {name: column.cpu() for name, column in columns.items()}

    def _wordings(self) -> list[str]:
        """Each instruction, followed by its renamings."""
        draw = np.random.default_rng(self.course.seed)
        return [
            wording
            for text in self.samples.instructions
            for wording in (text, *(rename(text, draw) for _ in range(self.course.renamings)))
        ]

    def _words(self, indices: NDArray[np.int64], augmentation: torch.Generator | None) -> Tensor:
        """Which wording each sample has: where things lie about, names tell which is meant."""
        wordings = 1 + self.course.renamings
        plain = torch.from_numpy(self.samples.words[indices] * wordings)
        if augmentation is None:
            return plain
        drawn = torch.randint(1, wordings, plain.shape, generator=augmentation)
        kept = torch.rand(plain.shape, generator=augmentation) < 1 - self.course.renamed
        return plain + drawn.masked_fill(kept | torch.from_numpy(self.samples.crowded[indices]), 0)

    def _batch(
        self,
        indices: NDArray[np.int64],
        images: NDArray[np.uint8],
        augmentation: torch.Generator | None,
    ) -> dict[str, Any]:
        pixels = torch.from_numpy(images).permute(0, 1, 4, 2, 3).float() / 255
        rows, words = torch.from_numpy(indices), self._words(indices, augmentation)
        states = self.columns[STATE][rows]
        if augmentation is not None:
            pixels = _augment(pixels, augmentation)
            states = states + 0.01 * torch.randn(states.shape, generator=augmentation)
        batch = {
            **dict(zip(EMBEDDED_CAMERAS, pixels.unbind(1), strict=True)),
            STATE: states,
            ACTION: self.columns[ACTION][rows],
            f"{ACTION}_is_pad": torch.from_numpy(~self.samples.inside[indices]),
            OBS_LANGUAGE_TOKENS: self.columns[OBS_LANGUAGE_TOKENS][words],
            OBS_LANGUAGE_ATTENTION_MASK: self.columns[OBS_LANGUAGE_ATTENTION_MASK][words],
        }
        return {name: column.to(device_of(self.policy)) for name, column in batch.items()}

    @torch.no_grad()
    def judge(self) -> dict[str, float]:
        """Losses and errors on held-out episodes, with the same noise each time."""
        self.policy.eval()
        generator = torch.Generator().manual_seed(0)
        chosen = self.judged[np.linspace(0, len(self.judged) - 1, _JUDGED).astype(int)]
        found: list[dict[str, float]] = []
        for part in np.array_split(chosen, max(1, _JUDGED // self.course.batch_size)):
            images = self.samples.frames(part)
            acts = self.course.acts(self.step - 1)
            losses, errors = self._losses(part, images, generator, acts, augmented=False)
            found.append({**{name: loss.item() for name, loss in losses.items()}, **errors})
        self.policy.train()
        return {name: float(np.nanmean([each[name] for each in found])) for name in found[0]}

    def _log(self, losses: list[Tensor], seconds: float) -> None:
        loss, held_out = torch.stack(losses).mean().item(), self.judge()
        entry = {
            "step": self.step,
            "of": self.course.steps,
            "loss": loss,
            "steps_per_second": len(losses) / seconds,
            "held_out": held_out,
        }
        with (self.folder / LOG).open("a") as log:
            log.write(json.dumps(entry) + "\n")
        shown = {name: round(value, 3) for name, value in held_out.items()}
        logger.info("step {}: loss {:.3f}, held out {}", self.step, loss, shown)

    # --- to be killed and go on ---------------------------------------------------------------

    def _parameters(self) -> dict[str, nn.Parameter]:
        owners = {"policy": self.policy, "heads": self.heads}
        return {
            f"{owner}.{name}": p
            for owner, module in owners.items()
            for name, p in module.named_parameters()
        }

    def _save(self) -> None:
        about = {"step": str(self.step), "course": json.dumps(asdict(self.course))}
        contents = {}
        for name, p in self._parameters().items():
            contents[name] = p.detach().contiguous()
            moments = self.optimizer.state.get(p, {})
            contents |= {f"{name}.{key}": value for key, value in moments.items()}
        draft = self.folder / f"{STATE_FILE}.draft"
        save_file(contents, draft, about)
        draft.replace(self.folder / STATE_FILE)

    def _resume(self) -> None:
        path = self.folder / STATE_FILE
        if not path.exists():
            return
        try:
            saved = load_file(path)
            with safe_open(path, "pt") as file:
                about = file.metadata()
        except SafetensorError as error:
            raise Zk0Error(f"{path} is damaged: {error}; delete it to begin anew.") from error
        if json.loads(about["course"]) != asdict(self.course):
            raise Zk0Error(f"{path} is of another course: {about['course']}; take another folder")
        for name, p in self._parameters().items():
            p.detach().copy_(saved[name])
            if f"{name}.step" in saved:
                moments = {key: saved[f"{name}.{key}"].to(p.device) for key in _MOMENTS}
                self.optimizer.state[p] = moments
        self.step = int(about["step"])
        logger.info("going on from step {} of {}", self.step, self.course.steps)


def rename(instruction: str, draw: np.random.Generator) -> str:
    """The instruction with any of the vocabulary's words where it names colours.

    A policy that knows things from their looks is not thrown off by a name it never heard.
    """
    named = {name for colours in COLOURS for name in colours}
    return " ".join(
        str(draw.choice(WORDS)) if word in named else word for word in instruction.split()
    )


def _augment(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Images (n, cameras, 3, h, w) in 0..1 with another contrast, brightness and some noise."""
    per_image = (*pixels.shape[:2], 1, 1, 1)
    contrast = 1 + 0.15 * torch.randn(per_image, generator=generator)
    brightness = 0.05 * torch.randn(per_image, generator=generator)
    noise = 0.02 * torch.randn(pixels.shape, generator=generator)
    return (pixels * contrast + brightness + noise).clamp(0, 1)
