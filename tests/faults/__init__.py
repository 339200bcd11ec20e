"""Faults of the disk and kills at every file operation of small runs: the old outputs or the new ones, nothing else."""
