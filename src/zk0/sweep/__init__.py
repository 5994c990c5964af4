"""Many runs with different settings, kept in one folder, and a table of what came out.

`file` reads a sweep's TOML file, `study` keeps the trials (Optuna), `loop` runs them one by one,
`flower` starts a trial's run, `report` writes the table.
"""
