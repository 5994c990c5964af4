"""Whether nodes and their datasets may be in one federation: one backbone, no episode twice, one
frame rate, one unit."""

from collections import Counter
from collections.abc import Collection, Mapping

from zk0.errors import Zk0Error
from zk0.federation.wire import Introduction

SHARED, MIXED = "shared-episodes", "mixed-units"


def refuse_incompatible(
    clients: Mapping[str, Introduction],
    own: Mapping[str, Introduction],
    allowed: Collection[str] = (),
) -> None:
    """Raise `Zk0Error` where the `clients`' datasets and the server's `own`, by what to call them,
    cannot be in one run; `allowed` are problems to overlook."""
    everybody = {**own, **clients}
    _refuse_other_backbones(everybody)
    _refuse_same_data(everybody)
    if SHARED not in allowed:
        _refuse_shared_episodes(everybody)
    _refuse_other_rates(everybody)
    if MIXED not in allowed:
        _refuse_other_units(everybody)


def _refuse_other_backbones(everybody: Mapping[str, Introduction]) -> None:
    """An action expert reads what one backbone says: of another's it would make nothing."""
    (first, one), *others = everybody.items()
    for name, who in others:
        if who.backbone != one.backbone:
            raise Zk0Error(
                f"{name} has another frozen backbone than {first} ({who.backbone[:12]}, not "
                f"{one.backbone[:12]}): install the same zk0 and name the same model everywhere."
            )


def _refuse_same_data(everybody: Mapping[str, Introduction]) -> None:
    owners: dict[str, str] = {}
    for name, who in everybody.items():
        if who.fingerprint in owners:
            raise Zk0Error(
                f"{name} and {owners[who.fingerprint]} have the same data, which would make the "
                "result meaningless: give each its own dataset."
            )
        owners[who.fingerprint] = name


def _refuse_shared_episodes(everybody: Mapping[str, Introduction]) -> None:
    owners: dict[str, str] = {}
    shared: Counter[tuple[str, str]] = Counter()
    for name, who in everybody.items():
        for episode in set(who.hashes):
            if episode in owners:
                shared[owners[episode], name] += 1
            owners[episode] = name
    for (first, second), count in shared.most_common(1):
        raise Zk0Error(
            f"{second} and {first} have {count} episodes in common, so that evaluating on them "
            "would prove nothing: remove them from one of the two (zk0 data doctor names them), or "
            f"allow-dataset-issues='{SHARED}'."
        )


def _refuse_other_rates(everybody: Mapping[str, Introduction]) -> None:
    rates = {name: who.recording.fps for name, who in everybody.items()}
    if len(set(rates.values())) > 1:
        listed = ", ".join(f"{name}: {fps}" for name, fps in rates.items())
        raise Zk0Error(
            f"datasets have different frame rates ({listed}), so that an action chunk would last "
            f"differently long: take all at {min(rates.values())} frames a second, with fps = "
            f'{min(rates.values())} beside the source, or --node-config "dataset-fps=...".'
        )


def _refuse_other_units(everybody: Mapping[str, Introduction]) -> None:
    units = {name: who.recording.units for name, who in everybody.items()}
    if len(set(units.values()) - {"unknown"}) > 1:
        listed = ", ".join(f"{name}: {unit}" for name, unit in units.items())
        raise Zk0Error(
            f"datasets are in different units ({listed}): one policy cannot be trained on both. "
            f"Convert them to degrees, or allow-dataset-issues='{MIXED}' where that is mistaken."
        )
