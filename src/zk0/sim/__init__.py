"""The embedded world: SO-101 tasks in MuJoCo, their scripted experts and their demonstrations."""
