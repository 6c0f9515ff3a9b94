"""Identifiers. Each kind is its own type, so that a checker keeps them apart."""

from __future__ import annotations

from typing import NewType

ModelName = NewType("ModelName", str)
GpuClassName = NewType("GpuClassName", str)
PoolId = NewType("PoolId", str)
PipelineId = NewType("PipelineId", str)
InstanceId = NewType("InstanceId", str)
WorkerId = NewType("WorkerId", str)
ServerId = NewType("ServerId", str)
RequestId = NewType("RequestId", int)
BatchId = NewType("BatchId", int)
