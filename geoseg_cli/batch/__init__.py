"""Many scenes, one command: which they are, where their maps go, what is done already, and how they are run.

inputs ─▶ SceneUnit ─▶ naming ─▶ SceneTask ─▶ shard ─▶ run | workers | dask_run ─▶ Outcome
                                                              │
                             identity ─▶ claims ─▶ journal ◀──┘   a rerun does what is missing, changed or failed
"""
