"""What differs on a GPU: run where there is one."""

import pytest
import torch

from zk0.data.frames import Frames
from zk0.learning import prefix_cache
from zk0.learning.batches import Batches
from zk0.learning.device import let_go_of_vision, set_precision
from zk0.learning.policy import build_policy
from zk0.learning.prefix import loss_from_prefix
from zk0.learning.prefix_cache import Cached, CacheOptions, Resident
from zk0.learning.training import (
    LocalSteps,
    add_proximal_gradient,
    build_optimizer,
    draw_noise,
    train,
)

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
CACHE = CacheOptions("prefix", 0.0, "float32")


@pytest.fixture
def on_gpu(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(prefix_cache, "_RESIDENT", {})
    return build_policy("embedded", 0, torch.device("cuda"), "float32")


def first_loss(policy, batches: Batches) -> torch.Tensor:
    rows = batches.frames.selection[:8]
    batch, prefix = batches.take(rows)
    noise, times = draw_noise(policy, len(rows), torch.Generator().manual_seed(0))
    return loss_from_prefix(policy, prefix, batch, noise, times)


def test_the_loss_is_the_cpus(on_gpu, touch: Frames):
    on_cpu = build_policy("embedded", 0, torch.device("cpu"))
    losses = [
        first_loss(policy, Batches(policy, touch, touch.statistics, CACHE)).item()
        for policy in (on_cpu, on_gpu)
    ]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


def test_prefixes_are_in_its_memory_and_what_reads_images_is_not(on_gpu, touch: Frames):
    batches = Batches(on_gpu, touch, touch.statistics, CACHE)
    assert isinstance(batches._prefixes, Resident)
    assert batches._prefixes.content.is_cuda
    vision = on_gpu.model.vlm_with_expert.vlm.model.vision_model
    assert {p.device.type for p in vision.parameters()} == {"cpu"}


def test_vision_that_was_let_go_comes_back_for_the_next_dataset(on_gpu, touch: Frames):
    expected = first_loss(on_gpu, Batches(on_gpu, touch, touch.statistics, CACHE))
    let_go_of_vision(on_gpu)
    vision = on_gpu.model.vlm_with_expert.vlm.model.vision_model
    assert {p.device.type for p in vision.parameters()} == {"cpu"}
    images = CacheOptions("vision", 0.0, "float32")
    found = first_loss(on_gpu, Batches(on_gpu, touch, touch.statistics, images))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_prefixes_that_do_not_fit_are_streamed_to_the_same_loss(
    on_gpu, touch: Frames, monkeypatch: pytest.MonkeyPatch
):
    expected = first_loss(on_gpu, Batches(on_gpu, touch, touch.statistics, CACHE))
    monkeypatch.setattr(prefix_cache, "_RESIDENT", {})
    monkeypatch.setattr(prefix_cache, "SHARE_OF_GPU", 0.0)
    streamed = Batches(on_gpu, touch, touch.statistics, CACHE)
    assert isinstance(streamed._prefixes, Cached)
    assert torch.equal(first_loss(on_gpu, streamed), expected)


def test_a_step_does_not_wait_for_the_device(on_gpu, touch: Frames):
    batches = Batches(on_gpu, touch, touch.statistics, CACHE)
    train(on_gpu, batches, LocalSteps(2, 8, 1e-3, 0.1), [0])  # libraries warm up
    parameters = [p for p in on_gpu.parameters() if p.requires_grad]
    optimizer = build_optimizer(on_gpu)
    torch.cuda.set_sync_debug_mode("error")
    try:
        first_loss(on_gpu, batches).backward()
        add_proximal_gradient(parameters, [p.detach().clone() for p in parameters], 0.1)
        torch.nn.utils.clip_grad_norm_(parameters, 10.0)
        optimizer.step()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_mixed_precision_stays_near(on_gpu, touch: Frames):
    expected = first_loss(on_gpu, Batches(on_gpu, touch, touch.statistics, CACHE)).item()
    set_precision(on_gpu, "auto")
    assert on_gpu.config.use_amp
    found = first_loss(on_gpu, Batches(on_gpu, touch, touch.statistics, CACHE)).item()
    assert found == pytest.approx(expected, rel=0.02)


def test_proximal_gradient_in_one_kernel_is_the_quadratic_terms(on_gpu):
    parameters = [p for p in on_gpu.parameters() if p.requires_grad]
    anchors = [torch.randn_like(p) for p in parameters]
    for p in parameters:
        p.grad = torch.ones_like(p)
    add_proximal_gradient(parameters, anchors, 0.3)
    for p, anchor in zip(parameters, anchors, strict=True):
        torch.testing.assert_close(p.grad, 1 + 0.3 * (p.detach() - anchor))
