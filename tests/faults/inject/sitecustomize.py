"""Faults on demand in the processes of a SuperLink that has this folder on its PYTHONPATH.

Python imports a module of this name by itself. `ZK0_TEST_FAULTS` is a JSON file with a list of
faults: `do` names one of the functions below, `round` says when (always, without it), and `slug`
whose, where it is a client's. A fault that pauses or ends a process leaves a file of its own name
with the process's number beside the list, so that a test knows which, and when.
"""

import errno
import json
import os
import signal
import sys
import time
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

FAULTS = os.environ.get("ZK0_TEST_FAULTS")
PAUSE_S = 60


def chosen(server_round, slug=None):
    """What to do in this round, of all faults or of a client's."""
    faults = json.loads(Path(FAULTS).read_text())
    return {
        fault["do"]
        for fault in faults
        if fault.get("round") in (None, server_round) and fault.get("slug") == slug
    }


def tell(name):
    """Let the test know that this process is at this point."""
    mark = Path(FAULTS).with_name(f"{name}.process")
    mark.with_suffix(".partial").write_text(str(os.getpid()))
    mark.with_suffix(".partial").replace(mark)


def pause(name):
    tell(name)
    time.sleep(PAUSE_S)


# --- a client's, before and after it trains -------------------------------------------------------


def raise_with_path(node):
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), f"{node.source.name}/data")


def raise_without_words(node):
    raise AssertionError


def hang(node):
    tell("hang")
    time.sleep(1e6)


def kill(node):
    tell("kill")
    os.kill(os.getpid(), signal.SIGKILL)


def pause_in_training(node):
    pause("pause_in_training")


def make_nan(old, new):
    name = sorted(new)[-1]
    new[name] = new[name].clone()
    new[name].view(-1)[-1] = float("nan")


def make_shorter(old, new):
    name = sorted(new)[0]
    new[name] = new[name][:-1].clone()


def make_huge(old, new):
    for name in new:
        new[name] = old[name] + 1000 * (new[name] - old[name])


def flip_byte(record):
    """Of the last number's mantissa, in a message that is ready to be sent."""
    name = sorted(record)[-1]
    data = bytearray(record[name].data)
    data[-4] ^= 1
    record[name].data = bytes(data)


BEFORE = (raise_with_path, raise_without_words, hang, kill, pause_in_training)
AFTER = (make_nan, make_shorter, make_huge)


def patch_node(module):
    fit = module.Node.fit

    def faulty_fit(node, arrays, statistics, rates, proximal_mu, seed, variates=None):
        do = chosen(seed[-1], node.source.slug)
        for fault in BEFORE:
            if fault.__name__ in do:
                fault(node)
        new, result = fit(node, arrays, statistics, rates, proximal_mu, seed, variates)
        for fault in AFTER:
            if fault.__name__ in do:
                fault(arrays, new)
        module.flips = "flip_byte" in do
        return new, result

    module.Node.fit = faulty_fit


def patch_client_app(module):
    pack = module.pack_training

    def faulty_pack(*arguments):
        content = pack(*arguments)
        if sys.modules["zk0.node"].flips:
            flip_byte(content["arrays"])
        return content

    module.pack_training = faulty_pack


# --- the server's ---------------------------------------------------------------------------------


def patch_rounds(module):
    step = module.Rounds._step

    def faulty_step(rounds, number, progress, intake):
        if "pause_in_aggregation" in chosen(number):
            pause("pause_in_aggregation")
        return step(rounds, number, progress, intake)

    module.Rounds._step = faulty_step


def patch_state(module):
    write, save_file = module._write, module.save_file

    def faulty_write(folder, state):
        if "fill_disk" in chosen(state.server_round):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(folder, state)

    def faulty_save_file(arrays, path):
        save_file(arrays, path)
        server_round = int(path.parent.name.split("_")[1].split(".")[0])
        if "pause_in_checkpoint" in chosen(server_round):
            pause("pause_in_checkpoint")

    module._write, module.save_file = faulty_write, faulty_save_file


def patch_unseen(module):
    evaluate, calls = module.Unseen.evaluate, []

    def faulty_evaluate(unseen, batches, predict):
        calls.append(unseen)
        if "fail_evaluation" in chosen(len(calls) - 1):
            raise RuntimeError("out of memory")
        return evaluate(unseen, batches, predict)

    module.Unseen.evaluate = faulty_evaluate


PATCHES = {
    "zk0.node": patch_node,
    "zk0.client_app": patch_client_app,
    "zk0.federation.rounds": patch_rounds,
    "zk0.federation.state": patch_state,
    "zk0.evaluation.unseen": patch_unseen,
}


class Patching(MetaPathFinder):
    """Patches a module as soon as it has been imported."""

    def find_spec(self, name, path, target=None) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name, path, target) if name in PATCHES else None
        if spec is not None and spec.loader is not None:
            run = spec.loader.exec_module

            def run_and_patch(module):
                run(module)
                PATCHES[name](module)

            spec.loader.exec_module = run_and_patch
        return spec


if FAULTS:
    sys.meta_path.insert(0, Patching())
