from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class FrameHeader(_message.Message):
    __slots__ = ("hello", "run_stage", "result", "report", "cancel", "link_opened")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    RUN_STAGE_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    REPORT_FIELD_NUMBER: _ClassVar[int]
    CANCEL_FIELD_NUMBER: _ClassVar[int]
    LINK_OPENED_FIELD_NUMBER: _ClassVar[int]
    hello: Hello
    run_stage: RunStage
    result: BatchResult
    report: StageReport
    cancel: CancelBatch
    link_opened: LinkOpened
    def __init__(self, hello: _Optional[_Union[Hello, _Mapping]] = ..., run_stage: _Optional[_Union[RunStage, _Mapping]] = ..., result: _Optional[_Union[BatchResult, _Mapping]] = ..., report: _Optional[_Union[StageReport, _Mapping]] = ..., cancel: _Optional[_Union[CancelBatch, _Mapping]] = ..., link_opened: _Optional[_Union[LinkOpened, _Mapping]] = ...) -> None: ...

class Hello(_message.Message):
    __slots__ = ("sender", "local_socket", "device")
    SENDER_FIELD_NUMBER: _ClassVar[int]
    LOCAL_SOCKET_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    sender: str
    local_socket: str
    device: str
    def __init__(self, sender: _Optional[str] = ..., local_socket: _Optional[str] = ..., device: _Optional[str] = ...) -> None: ...

class LinkOpened(_message.Message):
    __slots__ = ("receiver", "kind")
    RECEIVER_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    receiver: str
    kind: str
    def __init__(self, receiver: _Optional[str] = ..., kind: _Optional[str] = ...) -> None: ...

class TensorHeader(_message.Message):
    __slots__ = ("name", "datatype", "shape", "byte_size", "device")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DATATYPE_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    BYTE_SIZE_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    name: str
    datatype: str
    shape: _containers.RepeatedScalarFieldContainer[int]
    byte_size: int
    device: DeviceRegion
    def __init__(self, name: _Optional[str] = ..., datatype: _Optional[str] = ..., shape: _Optional[_Iterable[int]] = ..., byte_size: _Optional[int] = ..., device: _Optional[_Union[DeviceRegion, _Mapping]] = ...) -> None: ...

class DeviceRegion(_message.Message):
    __slots__ = ("generation", "start")
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    generation: int
    start: int
    def __init__(self, generation: _Optional[int] = ..., start: _Optional[int] = ...) -> None: ...

class Hop(_message.Message):
    __slots__ = ("instance_id", "address", "start_in_us", "sequence", "stage", "first", "count")
    INSTANCE_ID_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    START_IN_US_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    STAGE_FIELD_NUMBER: _ClassVar[int]
    FIRST_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    instance_id: str
    address: str
    start_in_us: int
    sequence: int
    stage: int
    first: int
    count: int
    def __init__(self, instance_id: _Optional[str] = ..., address: _Optional[str] = ..., start_in_us: _Optional[int] = ..., sequence: _Optional[int] = ..., stage: _Optional[int] = ..., first: _Optional[int] = ..., count: _Optional[int] = ...) -> None: ...

class RunStage(_message.Message):
    __slots__ = ("batch_id", "model", "samples", "stage", "route", "reply_to", "abandon_in_us", "tensors", "first", "count", "replies")
    BATCH_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    SAMPLES_FIELD_NUMBER: _ClassVar[int]
    STAGE_FIELD_NUMBER: _ClassVar[int]
    ROUTE_FIELD_NUMBER: _ClassVar[int]
    REPLY_TO_FIELD_NUMBER: _ClassVar[int]
    ABANDON_IN_US_FIELD_NUMBER: _ClassVar[int]
    TENSORS_FIELD_NUMBER: _ClassVar[int]
    FIRST_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    REPLIES_FIELD_NUMBER: _ClassVar[int]
    batch_id: int
    model: str
    samples: int
    stage: int
    route: _containers.RepeatedCompositeFieldContainer[Hop]
    reply_to: str
    abandon_in_us: int
    tensors: _containers.RepeatedCompositeFieldContainer[TensorHeader]
    first: int
    count: int
    replies: _containers.RepeatedCompositeFieldContainer[Reply]
    def __init__(self, batch_id: _Optional[int] = ..., model: _Optional[str] = ..., samples: _Optional[int] = ..., stage: _Optional[int] = ..., route: _Optional[_Iterable[_Union[Hop, _Mapping]]] = ..., reply_to: _Optional[str] = ..., abandon_in_us: _Optional[int] = ..., tensors: _Optional[_Iterable[_Union[TensorHeader, _Mapping]]] = ..., first: _Optional[int] = ..., count: _Optional[int] = ..., replies: _Optional[_Iterable[_Union[Reply, _Mapping]]] = ...) -> None: ...

class Reply(_message.Message):
    __slots__ = ("address", "first", "count")
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    FIRST_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    address: str
    first: int
    count: int
    def __init__(self, address: _Optional[str] = ..., first: _Optional[int] = ..., count: _Optional[int] = ...) -> None: ...

class BatchResult(_message.Message):
    __slots__ = ("batch_id", "tensors", "report", "first", "count")
    BATCH_ID_FIELD_NUMBER: _ClassVar[int]
    TENSORS_FIELD_NUMBER: _ClassVar[int]
    REPORT_FIELD_NUMBER: _ClassVar[int]
    FIRST_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    batch_id: int
    tensors: _containers.RepeatedCompositeFieldContainer[TensorHeader]
    report: StageReport
    first: int
    count: int
    def __init__(self, batch_id: _Optional[int] = ..., tensors: _Optional[_Iterable[_Union[TensorHeader, _Mapping]]] = ..., report: _Optional[_Union[StageReport, _Mapping]] = ..., first: _Optional[int] = ..., count: _Optional[int] = ...) -> None: ...

class StageReport(_message.Message):
    __slots__ = ("batch_id", "stage", "instance_id", "outcome", "waited_us", "compute_us", "overrun_us", "detail", "retriable")
    class Outcome(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        OUTCOME_UNSPECIFIED: _ClassVar[StageReport.Outcome]
        DONE: _ClassVar[StageReport.Outcome]
        ABANDONED: _ClassVar[StageReport.Outcome]
        FAILED: _ClassVar[StageReport.Outcome]
    OUTCOME_UNSPECIFIED: StageReport.Outcome
    DONE: StageReport.Outcome
    ABANDONED: StageReport.Outcome
    FAILED: StageReport.Outcome
    BATCH_ID_FIELD_NUMBER: _ClassVar[int]
    STAGE_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_ID_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    WAITED_US_FIELD_NUMBER: _ClassVar[int]
    COMPUTE_US_FIELD_NUMBER: _ClassVar[int]
    OVERRUN_US_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    RETRIABLE_FIELD_NUMBER: _ClassVar[int]
    batch_id: int
    stage: int
    instance_id: str
    outcome: StageReport.Outcome
    waited_us: int
    compute_us: int
    overrun_us: int
    detail: str
    retriable: bool
    def __init__(self, batch_id: _Optional[int] = ..., stage: _Optional[int] = ..., instance_id: _Optional[str] = ..., outcome: _Optional[_Union[StageReport.Outcome, str]] = ..., waited_us: _Optional[int] = ..., compute_us: _Optional[int] = ..., overrun_us: _Optional[int] = ..., detail: _Optional[str] = ..., retriable: bool = ...) -> None: ...

class CancelBatch(_message.Message):
    __slots__ = ("batch_id",)
    BATCH_ID_FIELD_NUMBER: _ClassVar[int]
    batch_id: int
    def __init__(self, batch_id: _Optional[int] = ...) -> None: ...
