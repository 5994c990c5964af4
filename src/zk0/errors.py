"""The one exception that a user is meant to read."""


class Zk0Error(Exception):
    """Something the user can put right; the message is one line: what, where, how to fix it."""
