"""Pipelined inference serving over mixed GPUs. Knows its version, nothing else."""

__version__ = "0.1.0"
