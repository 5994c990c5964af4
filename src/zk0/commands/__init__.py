"""The `zk0` command, a file for each of its parts."""
