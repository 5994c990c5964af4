"""Which rounds of a run have an evaluation, and which of these rollouts."""


def is_evaluated(server_round: int, last: int, every: int) -> bool:
    """Whether it is the `last` round, or one of `every` so many."""
    return server_round == last or server_round % every == 0


def has_rollouts(server_round: int, last: int, every: int, rollouts_every: int) -> bool:
    """Whether the round, evaluated `every` so many, is the `last` or the first such one since
    `rollouts_every` rounds have passed again (0: never before the last)."""
    if server_round == last:
        return True
    before = server_round - every
    due = rollouts_every > 0 and server_round // rollouts_every > before // rollouts_every
    return due and is_evaluated(server_round, last, every)
