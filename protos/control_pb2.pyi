from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class WorkerMessage(_message.Message):
    __slots__ = ("hello", "ready", "gone", "heartbeat")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    READY_FIELD_NUMBER: _ClassVar[int]
    GONE_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    hello: WorkerHello
    ready: InstanceReady
    gone: InstanceGone
    heartbeat: Heartbeat
    def __init__(self, hello: _Optional[_Union[WorkerHello, _Mapping]] = ..., ready: _Optional[_Union[InstanceReady, _Mapping]] = ..., gone: _Optional[_Union[InstanceGone, _Mapping]] = ..., heartbeat: _Optional[_Union[Heartbeat, _Mapping]] = ...) -> None: ...

class WorkerHello(_message.Message):
    __slots__ = ("worker_id", "gpu_class", "server", "executor", "device", "memory_bytes", "version", "share", "share_note", "process_per")
    WORKER_ID_FIELD_NUMBER: _ClassVar[int]
    GPU_CLASS_FIELD_NUMBER: _ClassVar[int]
    SERVER_FIELD_NUMBER: _ClassVar[int]
    EXECUTOR_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    SHARE_FIELD_NUMBER: _ClassVar[int]
    SHARE_NOTE_FIELD_NUMBER: _ClassVar[int]
    PROCESS_PER_FIELD_NUMBER: _ClassVar[int]
    worker_id: str
    gpu_class: str
    server: str
    executor: str
    device: str
    memory_bytes: int
    version: str
    share: str
    share_note: str
    process_per: str
    def __init__(self, worker_id: _Optional[str] = ..., gpu_class: _Optional[str] = ..., server: _Optional[str] = ..., executor: _Optional[str] = ..., device: _Optional[str] = ..., memory_bytes: _Optional[int] = ..., version: _Optional[str] = ..., share: _Optional[str] = ..., share_note: _Optional[str] = ..., process_per: _Optional[str] = ...) -> None: ...

class InstanceReady(_message.Message):
    __slots__ = ("instance_id", "address", "load_us", "process_id", "computation", "share")
    INSTANCE_ID_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    LOAD_US_FIELD_NUMBER: _ClassVar[int]
    PROCESS_ID_FIELD_NUMBER: _ClassVar[int]
    COMPUTATION_FIELD_NUMBER: _ClassVar[int]
    SHARE_FIELD_NUMBER: _ClassVar[int]
    instance_id: str
    address: str
    load_us: int
    process_id: int
    computation: Computation
    share: ObtainedShare
    def __init__(self, instance_id: _Optional[str] = ..., address: _Optional[str] = ..., load_us: _Optional[int] = ..., process_id: _Optional[int] = ..., computation: _Optional[_Union[Computation, _Mapping]] = ..., share: _Optional[_Union[ObtainedShare, _Mapping]] = ...) -> None: ...

class ObtainedShare(_message.Message):
    __slots__ = ("mechanism", "sms", "device_sms")
    MECHANISM_FIELD_NUMBER: _ClassVar[int]
    SMS_FIELD_NUMBER: _ClassVar[int]
    DEVICE_SMS_FIELD_NUMBER: _ClassVar[int]
    mechanism: str
    sms: int
    device_sms: int
    def __init__(self, mechanism: _Optional[str] = ..., sms: _Optional[int] = ..., device_sms: _Optional[int] = ...) -> None: ...

class Computation(_message.Message):
    __slots__ = ("compiled", "launched", "precision", "memory_format", "max_error", "rms_error", "remark")
    COMPILED_FIELD_NUMBER: _ClassVar[int]
    LAUNCHED_FIELD_NUMBER: _ClassVar[int]
    PRECISION_FIELD_NUMBER: _ClassVar[int]
    MEMORY_FORMAT_FIELD_NUMBER: _ClassVar[int]
    MAX_ERROR_FIELD_NUMBER: _ClassVar[int]
    RMS_ERROR_FIELD_NUMBER: _ClassVar[int]
    REMARK_FIELD_NUMBER: _ClassVar[int]
    compiled: str
    launched: str
    precision: str
    memory_format: str
    max_error: float
    rms_error: float
    remark: str
    def __init__(self, compiled: _Optional[str] = ..., launched: _Optional[str] = ..., precision: _Optional[str] = ..., memory_format: _Optional[str] = ..., max_error: _Optional[float] = ..., rms_error: _Optional[float] = ..., remark: _Optional[str] = ...) -> None: ...

class InstanceGone(_message.Message):
    __slots__ = ("instance_id", "reason", "load_failed")
    INSTANCE_ID_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    LOAD_FAILED_FIELD_NUMBER: _ClassVar[int]
    instance_id: str
    reason: str
    load_failed: bool
    def __init__(self, instance_id: _Optional[str] = ..., reason: _Optional[str] = ..., load_failed: bool = ...) -> None: ...

class Heartbeat(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class WorkerCommand(_message.Message):
    __slots__ = ("welcome", "load", "unload", "refused")
    WELCOME_FIELD_NUMBER: _ClassVar[int]
    LOAD_FIELD_NUMBER: _ClassVar[int]
    UNLOAD_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    welcome: Welcome
    load: LoadInstance
    unload: UnloadInstance
    refused: Refused
    def __init__(self, welcome: _Optional[_Union[Welcome, _Mapping]] = ..., load: _Optional[_Union[LoadInstance, _Mapping]] = ..., unload: _Optional[_Union[UnloadInstance, _Mapping]] = ..., refused: _Optional[_Union[Refused, _Mapping]] = ...) -> None: ...

class Welcome(_message.Message):
    __slots__ = ("heartbeat_interval_us",)
    HEARTBEAT_INTERVAL_US_FIELD_NUMBER: _ClassVar[int]
    heartbeat_interval_us: int
    def __init__(self, heartbeat_interval_us: _Optional[int] = ...) -> None: ...

class BlockFile(_message.Message):
    __slots__ = ("file", "sha256")
    FILE_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    file: str
    sha256: str
    def __init__(self, file: _Optional[str] = ..., sha256: _Optional[str] = ...) -> None: ...

class Execution(_message.Message):
    __slots__ = ("precision", "memory_format", "compile", "capture", "max_error")
    PRECISION_FIELD_NUMBER: _ClassVar[int]
    MEMORY_FORMAT_FIELD_NUMBER: _ClassVar[int]
    COMPILE_FIELD_NUMBER: _ClassVar[int]
    CAPTURE_FIELD_NUMBER: _ClassVar[int]
    MAX_ERROR_FIELD_NUMBER: _ClassVar[int]
    precision: str
    memory_format: str
    compile: str
    capture: bool
    max_error: float
    def __init__(self, precision: _Optional[str] = ..., memory_format: _Optional[str] = ..., compile: _Optional[str] = ..., capture: bool = ..., max_error: _Optional[float] = ...) -> None: ...

class LoadInstance(_message.Message):
    __slots__ = ("instance_id", "model", "version", "first_block", "end_block", "share_numerator", "share_denominator", "batch", "latency_us_by_batch", "blocks_sha256", "frontend_link", "execution")
    INSTANCE_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    FIRST_BLOCK_FIELD_NUMBER: _ClassVar[int]
    END_BLOCK_FIELD_NUMBER: _ClassVar[int]
    SHARE_NUMERATOR_FIELD_NUMBER: _ClassVar[int]
    SHARE_DENOMINATOR_FIELD_NUMBER: _ClassVar[int]
    BATCH_FIELD_NUMBER: _ClassVar[int]
    LATENCY_US_BY_BATCH_FIELD_NUMBER: _ClassVar[int]
    BLOCKS_SHA256_FIELD_NUMBER: _ClassVar[int]
    FRONTEND_LINK_FIELD_NUMBER: _ClassVar[int]
    EXECUTION_FIELD_NUMBER: _ClassVar[int]
    instance_id: str
    model: str
    version: str
    first_block: int
    end_block: int
    share_numerator: int
    share_denominator: int
    batch: int
    latency_us_by_batch: _containers.RepeatedScalarFieldContainer[int]
    blocks_sha256: str
    frontend_link: str
    execution: Execution
    def __init__(self, instance_id: _Optional[str] = ..., model: _Optional[str] = ..., version: _Optional[str] = ..., first_block: _Optional[int] = ..., end_block: _Optional[int] = ..., share_numerator: _Optional[int] = ..., share_denominator: _Optional[int] = ..., batch: _Optional[int] = ..., latency_us_by_batch: _Optional[_Iterable[int]] = ..., blocks_sha256: _Optional[str] = ..., frontend_link: _Optional[str] = ..., execution: _Optional[_Union[Execution, _Mapping]] = ...) -> None: ...

class UnloadInstance(_message.Message):
    __slots__ = ("instance_id",)
    INSTANCE_ID_FIELD_NUMBER: _ClassVar[int]
    instance_id: str
    def __init__(self, instance_id: _Optional[str] = ...) -> None: ...

class Refused(_message.Message):
    __slots__ = ("reason",)
    REASON_FIELD_NUMBER: _ClassVar[int]
    reason: str
    def __init__(self, reason: _Optional[str] = ...) -> None: ...
