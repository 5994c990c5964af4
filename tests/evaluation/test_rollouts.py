"""Closed loop: whoever plays, many episodes in one world are what each is alone."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from zk0.data.frames import Frames
from zk0.data.sources import Source
from zk0.errors import Zk0Error
from zk0.evaluation import closed_loop
from zk0.evaluation.controllers import Expert, Hold, PolicyController, Random
from zk0.evaluation.rollouts import TIME_LIMIT_S, roll_out
from zk0.evaluation.tally import by_task, tally
from zk0.evaluation.twins import Twin, all_twins, choose, twins_of
from zk0.learning.policy import make_processors
from zk0.pretraining import samples
from zk0.record.evidence import Rollout, load_rollouts, save_rollouts
from zk0.record.videos import load_facts
from zk0.sim import manifest
from zk0.sim.recipes import GENERATION, RECIPES
from zk0.sim.rendering import available
from zk0.sim.world import World

NEAR = ["near-touch", "near-picklift", "near-push", "near-pull"]
SEEDS = list(range(10_000_000, 10_000_003))


@pytest.fixture(scope="module")
def touch_twin() -> Twin:
    (twin,) = choose(["touch"])
    return twin


def play(twin: Twin, controller_in, seeds, rendering=None, films=None) -> list[Rollout]:
    with World(twin.scene, twin.fps, twin.image_size, rendering) as world:
        return roll_out(world, twin.name, controller_in(world), seeds, films)


@pytest.mark.parametrize("name", ["touch", "picklift", "push", "pull", "far"])
def test_the_expert_succeeds_and_passes_all_stages(name: str):
    (twin,) = choose([name])
    for rollout in play(twin, Expert, SEEDS):
        assert rollout.success
        assert rollout.frames < TIME_LIMIT_S[twin.scene.task] * twin.fps
        assert rollout.nearest < 0.05  # of its tip, which pushes with its side
        stages = {
            "touch": (None, None, None),
            "push": (None, None, True),
            "pull": (None, None, True),
        }
        expected = stages.get(name, (True, True, None))
        assert (rollout.grasped, rollout.lifted, rollout.moved) == expected


def test_holding_still_takes_all_the_time_and_reaches_nothing(touch_twin: Twin):
    for rollout in play(touch_twin, lambda world: Hold(), SEEDS):
        assert not rollout.success
        assert rollout.frames == 40
        assert rollout.seconds == 4.0
        assert rollout.smoothness < 100  # it sags a little


def test_success_has_to_last(touch_twin: Twin):
    """The expert's plan up to the first moment of success, and away again at once."""

    class Fleeting(Expert):
        def decide(self, episodes):
            (plan,) = super().decide(episodes)
            return [np.concatenate([plan[:touched], np.tile(plan[0], (20, 1))])]

    with World(touch_twin.scene, touch_twin.fps) as world:
        world.reset(SEEDS[0])
        world_plan, touched = world.expert_actions(), 0
        while not world.success:
            world.step(world_plan[touched])
            touched += 1
    (rollout,) = play(touch_twin, Fleeting, SEEDS[:1])
    assert not rollout.success
    assert rollout.nearest <= 0.041  # the touch itself


@pytest.mark.parametrize("controller_in", [Random, Expert])
def test_together_is_as_alone(controller_in):
    (twin,) = choose(["picklift"])
    together = play(twin, controller_in, SEEDS)
    assert together == [play(twin, controller_in, [seed])[0] for seed in SEEDS]


def test_random_arms_move_differently_in_each_episode(touch_twin: Twin):
    first, second, _ = play(touch_twin, Random, SEEDS)
    assert first.nearest != second.nearest
    assert first.smoothness > 100


def test_policy_acts_as_lerobot_would_have_it(policy, touch: Frames, touch_twin: Twin):
    """On what it sees: preprocessor, `predict_action_chunk` and postprocessor are lerobot's."""
    controller = PolicyController(policy, touch.statistics)
    seen = []

    class Watch:
        def decide(self, episodes):
            actions = controller.decide(episodes)
            seen.append((episodes[0].observation, controller._noise(episodes[0]), actions[0]))
            return actions

    play(touch_twin, lambda world: Watch(), SEEDS[:1], available())
    preprocess, postprocess = make_processors(policy, touch.statistics)
    for observation, noise, actions in (seen[0], seen[-1]):
        images = {
            f"observation.images.{camera}": torch.from_numpy(image).permute(2, 0, 1).float() / 255
            for camera, image in observation.images.items()
        }
        state = {"observation.state": torch.from_numpy(observation.state)}
        batch = preprocess({**state, **images, "task": "Touch the red cube."})
        chunk = policy.predict_action_chunk(batch, noise=noise[None])
        expected = postprocess(chunk)[0, : policy.config.n_action_steps].numpy()
        assert len(actions) == policy.config.n_action_steps
        np.testing.assert_allclose(actions, expected, rtol=1e-3, atol=1e-2)


def test_policys_rollouts_are_the_same_again_and_in_other_company(policy, touch, touch_twin):
    statistics = touch.statistics
    once = closed_loop.play_policy(policy, statistics, touch_twin, SEEDS)
    again = closed_loop.play_policy(policy, statistics, touch_twin, SEEDS)
    assert once == again
    alone = closed_loop.play_policy(policy, statistics, touch_twin, SEEDS[:1])
    assert alone[0].nearest == pytest.approx(once[0].nearest, abs=1e-3)


def test_films_show_every_frame_and_say_what_happened(policy, touch, touch_twin, tmp_path: Path):
    films = {SEEDS[1]: closed_loop.Film()}
    rollouts = closed_loop.play_policy(policy, touch.statistics, touch_twin, SEEDS, films)
    closed_loop.save_films(films, rollouts, tmp_path, "server", 3, 0.25)
    (video,) = tmp_path.glob("*.mp4")
    assert video.name == f"rollout_touch_{SEEDS[1]}.mp4"
    facts = load_facts(video)
    assert (facts.kind, facts.seed, facts.policy_loss) == ("rollout", SEEDS[1], 0.25)
    assert (facts.success, facts.frames) == (rollouts[1].success, rollouts[1].frames)
    assert len(films[SEEDS[1]].images) == rollouts[1].frames
    plain = closed_loop.play_policy(policy, touch.statistics, touch_twin, SEEDS)
    assert plain == rollouts  # filming changes nothing


def test_policy_with_other_cameras_has_no_twin(policy, monkeypatch: pytest.MonkeyPatch):
    closed_loop.check_twin(policy)
    features = dict(policy.config.input_features)
    features["observation.images.top"] = features.pop("observation.images.wrist")
    monkeypatch.setattr(policy.config, "input_features", features)
    with pytest.raises(Zk0Error, match=r"takes .*images.top.*no twin"):
        closed_loop.check_twin(policy)


# --- twins ----------------------------------------------------------------------------------------


def test_twins_of_the_embedded_world_and_of_its_copies(datasets: dict[str, Path]):
    names = [twin.name for twin in twins_of(Source("sim", "near"))]
    assert names == NEAR
    (copy,) = twins_of(Source("local", str(datasets["near"])))
    assert (copy.name, copy.dataset) == ("near", "near")
    assert copy.scene.regions == RECIPES["near"].scenes[0].regions


def test_copies_that_an_older_zk0_made_have_no_twin(datasets: dict[str, Path], tmp_path: Path):
    content = json.loads((datasets["touch"] / manifest.NAME).read_text())
    assert content["generation"] == GENERATION
    (tmp_path / manifest.NAME).write_text(json.dumps({**content, "generation": GENERATION - 1}))
    assert twins_of(Source("local", str(tmp_path))) == []
    (tmp_path / manifest.NAME).write_text(json.dumps(content))
    assert [twin.name for twin in twins_of(Source("local", str(tmp_path)))] == [tmp_path.name]


def test_no_two_tasks_share_a_scene_and_none_is_a_demonstration_s():
    longest = 10_000  # episodes of `zk0 rollout`
    ranges = [twin.seeds(longest) for twin in choose([])]
    assert len({seed for seeds in ranges for seed in seeds}) == longest * len(ranges)
    demonstrations = max(entry.seed for entry in RECIPES.values()) + 10 * 30
    assert min(seeds[0] for seeds in ranges) > demonstrations
    assert max(seeds[-1] for seeds in ranges) < samples.FIRST_SEED


def test_real_data_have_no_twin(tmp_path: Path):
    assert twins_of(Source("local", str(tmp_path))) == []
    assert twins_of(Source("hf", "lerobot/svla_so100_stacking")) == []


def test_twins_are_chosen_by_task_or_dataset():
    chosen = choose(["near-touch", "near", "touch"])
    assert [twin.name for twin in chosen] == [*NEAR, "touch"]
    assert len(choose([])) == 9
    with pytest.raises(Zk0Error, match="did you mean 'picklift'"):
        choose(["pick-lift"])
    sources = [Source("sim", "touch"), Source("sim", "near")]
    assert list(all_twins(sources)) == ["touch", *NEAR]


# --- in a few numbers -----------------------------------------------------------------------------

LOST = Rollout("lift", 1, "Lift.", False, 65, 10, 0.04, True, False, None, 100.0)


def test_tally_counts_and_leaves_out_what_a_task_does_not_have():
    won = replace(LOST, seed=2, success=True, frames=30, nearest=0.0, lifted=True)
    result = tally([LOST, won, replace(won, seed=3, frames=50)])
    assert (result.episodes, result.successes, result.rate) == (3, 2, pytest.approx(2 / 3))
    assert (result.low, result.high) == pytest.approx((0.2077, 0.9385), abs=1e-4)  # Wilson 1927
    assert result.seconds == 4.0
    assert (result.grasped, result.lifted, result.moved) == (1.0, pytest.approx(2 / 3), None)
    assert tally([LOST]).seconds is None
    assert list(by_task([LOST, replace(LOST, task="touch"), LOST])) == ["lift", "touch"]


def test_rollouts_survive_the_disk(tmp_path: Path):
    assert load_rollouts(tmp_path) == []
    save_rollouts(tmp_path, [LOST])
    assert load_rollouts(tmp_path) == [LOST]
    (tmp_path / "rollouts.json").write_text('[{"task": "lift"}]')
    with pytest.raises(Zk0Error, match="cannot be read"):
        load_rollouts(tmp_path)
