"""Which charts a record has, by section. Pure: a record in, figures out."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from zk0.evaluation.intervals import wilson
from zk0.evaluation.tally import Tally
from zk0.report.figures import Dot, Figure, Section, Series, line, lines
from zk0.report.reading import Curve, Record, Round

LOSS = "policy loss"
STAGES = ("grasped", "lifted", "moved")
PHASES = ("train", "aggregate", "evaluate", "server-evaluate", "rollouts")
HELD_OUT = "clients' held-out"


OUTLINE = (  # the sections in the order of the page, without their figures
    Section(
        "server",
        "Server",
        "Policy loss on data that no client has",
        absent="The server has not evaluated yet.",
        intro="Lower is better. The composite is the mean over the server's datasets.",
    ),
    Section(
        "clients",
        "Clients",
        "Policy loss of each client",
        absent="No client has replied yet.",
        intro="The first and last step of a client's training in a round, and the policy loss of "
        "the new global model on the client's held-out episodes.",
    ),
    Section(
        "joints",
        "Joints",
        "Losses and action errors by joint",
        absent="Nothing was measured by joint.",
        intro="Action errors are mean absolute: degrees, for the gripper percent. They are "
        "measured before round 1 and in the rounds with rollouts.",
    ),
    Section("schedule", "Schedule", "Learning rate and mu", absent="No round has been planned."),
    Section("updates", "Updates", "Clients' updates", absent="No client's update was measured."),
    Section(
        "tasks",
        "Rollouts",
        "Rollouts in the simulator",
        absent="No rollouts have been played.",
        intro="Shares of the rollouts of a task with Wilson's 95 % interval.",
    ),
    Section("cost", "Cost", "Time and bytes of each round", absent="No round has been timed."),
)


def sections(record: Record) -> list[Section]:
    """All of them, in the order of the page; those of a running run may be empty yet."""
    draw: dict[str, Callable[[Record], Iterable[Figure]]] = {
        "server": _server_losses,
        "clients": _client_losses,
        "joints": _joints,
        "schedule": _schedule,
        "updates": _updates,
        "tasks": _tasks,
        "cost": _cost,
    }
    return [replace(part, figures=_present(draw[part.id](record))) for part in OUTLINE]


def _present(figures: Iterable[Figure]) -> list[Figure]:
    return [each for each in figures if each.series]


# --- losses ---------------------------------------------------------------------------------------


def _server_losses(record: Record) -> Iterator[Figure]:
    curves = {slug: curve for slug, curve in record.losses.items() if slug != "composite"}
    composite = Series("composite", sorted(record.losses["composite"].items()), -1)
    series = [composite, *lines(curves)] if composite.points else []
    yield Figure("server-loss", "Server's policy loss", LOSS, series)


def _client_losses(record: Record) -> list[Figure]:
    """One small chart for each client, all with the same axis; for one who trains alone, one more
    of what the training as a whole recorded."""
    panels = {
        client.label: [
            _curve("first step", record.trained, client.client, "first_loss", 4),
            _curve("last step", record.trained, client.client, "last_loss", 0),
            _curve("held out", record.evaluated, client.client, "loss", 1),
        ]
        for client in record.about.clients
    }
    if not record.trained:
        panels = {f"{record.about.kind} training": _whole_training(record.rounds), **panels}
    drawn = {name: [s for s in series if s.points] for name, series in panels.items()}
    drawn = {name: series for name, series in drawn.items() if series}
    values = [y for series in drawn.values() for each in series for _, y in each.points]
    top = max(values, default=0.0)
    return [
        Figure(f"client-{place}", name, LOSS, series, top=top, small=True)
        for place, (name, series) in enumerate(drawn.items())
    ]


def _curve(name: str, entries: Sequence[Any], client: int, value: str, colour: int) -> Series:
    curve = {each.round: getattr(each, value) for each in entries if each.client == client}
    return line(name, curve, colour, dashed=name == "first step")


def _whole_training(rounds: Sequence[Round]) -> list[Series]:
    first, last = (_aggregate(rounds, name) for name in ("first-loss", "last-loss"))
    return [line("first step", first, 4, dashed=True), line("last step", last, 0)]


def _aggregate(rounds: Sequence[Round], name: str) -> dict[int, float]:
    """A metric of the training as a whole."""
    return _over(rounds, lambda each: (each.train or {}).get(name))


def _over(rounds: Sequence[Round], value: Callable[[Round], float | None]) -> dict[int, float]:
    """By round, where there is one."""
    found = ((each.round, value(each)) for each in rounds)
    return {number: each for number, each in found if each is not None}


# --- joints ---------------------------------------------------------------------------------------


def _joints(record: Record) -> Iterator[Figure]:
    """For each of the server's datasets, and the clients' together: loss and error by joint."""
    for place, (name, by_round) in enumerate(_measured(record.rounds).items()):
        for prefix, what, unit in (
            ("loss.", "policy loss", "policy loss"),
            ("error.", "action error", "degrees, gripper %"),
        ):
            yield Figure(
                f"joints-{place}-{prefix[:-1]}",
                f"{name}: {what} by joint",
                unit,
                lines(_by_joint(by_round, prefix)),
            ).unless_single()


def _measured(rounds: Sequence[Round]) -> dict[str, dict[int, Mapping[str, float]]]:
    found: dict[str, dict[int, Mapping[str, float]]] = defaultdict(dict)
    for each in rounds:
        for slug, values in each.server.datasets.items() if each.server else ():
            found[slug][each.round] = values
    for each in rounds:
        if each.evaluate:
            found[HELD_OUT][each.round] = each.evaluate
    return found


def _by_joint(
    by_round: Mapping[int, Mapping[str, float]], prefix: str
) -> dict[str, dict[int, float]]:
    curves: dict[str, dict[int, float]] = defaultdict(dict)
    for number, values in by_round.items():
        for name, value in values.items():
            if name.startswith(prefix):
                curves[name.removeprefix(prefix).replace("_", " ")][number] = value
    return curves


# --- schedule and updates -------------------------------------------------------------------------


def _schedule(record: Record) -> Iterator[Figure]:
    rates = _over(record.rounds, lambda each: each.plan.learning_rate if each.plan else None)
    proximal = _over(record.rounds, lambda each: each.plan.proximal_mu if each.plan else None)
    rate = lines({"learning rate": rates})
    boosted = [
        Series(f"client {client}", points, 1, marks=True)
        for client, points in _boosted(record.rounds).items()
    ]
    yield Figure(
        "rate", "Learning rate", "learning rate", [*rate, *boosted, *_rules(record, rates)]
    )
    if record.about.kind == "federated":  # the controls have no proximal term
        yield Figure(
            "mu", "Proximal mu", "mu", [*lines({"mu": proximal}), *_rules(record, proximal)]
        )


def _boosted(rounds: Sequence[Round]) -> dict[int, list[tuple[int, float]]]:
    """Learning rates of hard clients."""
    found: dict[int, list[tuple[int, float]]] = defaultdict(list)
    for each in rounds:
        for client, rate in each.plan.boosted.items() if each.plan else ():
            found[client].append((each.round, rate))
    return found


def _rules(record: Record, curve: Curve) -> list[Series]:
    """Marks on `curve` in the rounds in which a rule acted."""
    acted: dict[str, list[tuple[int, float]]] = defaultdict(list)
    for each in record.rounds:
        for rule in each.plan.rules if each.plan else ():
            acted[rule].append((each.round, curve[each.round]))
    return [
        Series(rule, points, 2 + place % 4, marks=True)
        for place, (rule, points) in enumerate(acted.items())
    ]


def _updates(record: Record) -> Iterator[Figure]:
    norms = {
        client.label: {
            each.round: each.update_norm
            for each in record.trained
            if each.client == client.client and each.update_norm is not None
        }
        for client in record.about.clients
    }
    if not record.trained:
        norms = {"all": _aggregate(record.rounds, "update-norm")}
    note = "How far a client's training moved the weights in a round (Euclidean norm)."
    yield Figure("norms", "Norm of the update", "norm", lines(norms), note=note)
    note = "1: all clients pull in the same direction; 0: unrelated; below 0: against each other."
    yield Figure("cosine", "Cosine between updates", "cosine", lines(_cosines(record)), note=note)


def _cosines(record: Record) -> dict[str, dict[int, float]]:
    """The mean over all pairs of clients, and over each client's own pairs."""
    curves: dict[str, dict[int, float]] = defaultdict(dict)
    for each in record.rounds:
        if each.cosine is None or each.cosine.mean is None:
            continue
        curves["all pairs"][each.round] = each.cosine.mean
        for client in record.about.clients:
            number = str(client.client)
            own = [v for pair, v in each.cosine.pairs.items() if number in pair.split("-")]
            if own:
                curves[client.label][each.round] = sum(own) / len(own)
    return curves


# --- rollouts -------------------------------------------------------------------------------------


def _tasks(record: Record) -> Iterator[Figure]:
    played = [each for each in record.rounds if each.rollouts]
    if not played:
        return
    newest = played[-1].rollouts or {}
    title = f"Success and stages reached, round {played[-1].round}"
    unit = "% of rollouts"
    yield Figure("stages", title, unit, _stages(newest), kind="dots", rows=list(newest), top=100)
    if len(played) > 1:
        yield Figure("success", "Success over rounds", unit, lines(_rates(played)), top=100)
    nearest = {
        task: {each.round: 100 * each.rollouts[task].nearest for each in played if each.rollouts}
        for task in newest
    }
    note = "Mean over rollouts of the gripper's least distance from the object."
    yield Figure("nearest", "Nearest distance", "cm", lines(nearest), note=note).unless_single()


def _rates(played: Sequence[Round]) -> dict[str, dict[int, float]]:
    curves: dict[str, dict[int, float]] = defaultdict(dict)
    for each in played:
        for task, tally in (each.rollouts or {}).items():
            curves[task][each.round] = 100 * tally.rate
    return curves


def _stages(tallies: Mapping[str, Tally]) -> list[Series]:
    """A series for each stage that a task has, and success."""
    found = []
    for place, stage in enumerate((*STAGES, "success")):
        dots = [
            _share(row, each, stage)
            for row, each in enumerate(tallies.values())
            if stage == "success" or getattr(each, stage) is not None
        ]
        if dots:
            colour = -1 if stage == "success" else (4, 0, 2)[place]
            found.append(Series(stage, colour=colour, dots=dots))
    return found


def _share(row: int, tally: Tally, stage: str) -> Dot:
    if stage == "success":
        return Dot(row, 100 * tally.rate, 100 * tally.low, 100 * tally.high)
    share = getattr(tally, stage)
    low, high = wilson(round(share * tally.episodes), tally.episodes, 0.95)
    return Dot(row, 100 * share, 100 * low, 100 * high)


# --- cost -----------------------------------------------------------------------------------------


def _cost(record: Record) -> Iterator[Figure]:
    found = {phase for each in record.rounds for phase in each.seconds}
    phases = [*(phase for phase in PHASES if phase in found), *sorted(found.difference(PHASES))]
    seconds = {phase: _spent(record.rounds, phase) for phase in phases}
    note = "Replies are folded in while others still train: that time is in both."
    yield Figure("time", "Time by phase", "seconds", lines(seconds), kind="bars", note=note)
    ways = {"down": "to clients", "up": "from clients"}
    megabytes = {where: _travelled(record.rounds, way) for way, where in ways.items()}
    yield Figure("bytes", "What travels", "MB", lines(megabytes), kind="bars")


def _spent(rounds: Sequence[Round], phase: str) -> dict[int, float]:
    return _over(rounds, lambda each: each.seconds.get(phase))


def _travelled(rounds: Sequence[Round], way: str) -> dict[int, float]:
    """Megabytes."""
    return {each.round: each.traffic[way] / 1e6 for each in rounds if way in each.traffic}
