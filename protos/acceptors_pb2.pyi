from protos import link_pb2 as _link_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Notice(_message.Message):
    __slots__ = ("listening", "broken", "arrived", "cancelled", "reported", "delivered", "failed", "unreachable", "refused", "asked", "idle", "region_change_made", "settings", "errand", "forgotten", "answered", "dropped", "joined", "parted", "standing", "closed", "stopped", "answer", "region_change")
    LISTENING_FIELD_NUMBER: _ClassVar[int]
    BROKEN_FIELD_NUMBER: _ClassVar[int]
    ARRIVED_FIELD_NUMBER: _ClassVar[int]
    CANCELLED_FIELD_NUMBER: _ClassVar[int]
    REPORTED_FIELD_NUMBER: _ClassVar[int]
    DELIVERED_FIELD_NUMBER: _ClassVar[int]
    FAILED_FIELD_NUMBER: _ClassVar[int]
    UNREACHABLE_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    ASKED_FIELD_NUMBER: _ClassVar[int]
    IDLE_FIELD_NUMBER: _ClassVar[int]
    REGION_CHANGE_MADE_FIELD_NUMBER: _ClassVar[int]
    SETTINGS_FIELD_NUMBER: _ClassVar[int]
    ERRAND_FIELD_NUMBER: _ClassVar[int]
    FORGOTTEN_FIELD_NUMBER: _ClassVar[int]
    ANSWERED_FIELD_NUMBER: _ClassVar[int]
    DROPPED_FIELD_NUMBER: _ClassVar[int]
    JOINED_FIELD_NUMBER: _ClassVar[int]
    PARTED_FIELD_NUMBER: _ClassVar[int]
    STANDING_FIELD_NUMBER: _ClassVar[int]
    CLOSED_FIELD_NUMBER: _ClassVar[int]
    STOPPED_FIELD_NUMBER: _ClassVar[int]
    ANSWER_FIELD_NUMBER: _ClassVar[int]
    REGION_CHANGE_FIELD_NUMBER: _ClassVar[int]
    listening: Listening
    broken: Broken
    arrived: RequestArrival
    cancelled: int
    reported: _link_pb2.StageReport
    delivered: int
    failed: BatchFault
    unreachable: LostInstance
    refused: str
    asked: Question
    idle: bool
    region_change_made: RegionChangeMade
    settings: AcceptorSettings
    errand: Errand
    forgotten: int
    answered: RequestAnswered
    dropped: RequestDropped
    joined: JoinedInstance
    parted: LostInstance
    standing: Standing
    closed: bool
    stopped: bool
    answer: Answer
    region_change: RegionChange
    def __init__(self, listening: _Optional[_Union[Listening, _Mapping]] = ..., broken: _Optional[_Union[Broken, _Mapping]] = ..., arrived: _Optional[_Union[RequestArrival, _Mapping]] = ..., cancelled: _Optional[int] = ..., reported: _Optional[_Union[_link_pb2.StageReport, _Mapping]] = ..., delivered: _Optional[int] = ..., failed: _Optional[_Union[BatchFault, _Mapping]] = ..., unreachable: _Optional[_Union[LostInstance, _Mapping]] = ..., refused: _Optional[str] = ..., asked: _Optional[_Union[Question, _Mapping]] = ..., idle: bool = ..., region_change_made: _Optional[_Union[RegionChangeMade, _Mapping]] = ..., settings: _Optional[_Union[AcceptorSettings, _Mapping]] = ..., errand: _Optional[_Union[Errand, _Mapping]] = ..., forgotten: _Optional[int] = ..., answered: _Optional[_Union[RequestAnswered, _Mapping]] = ..., dropped: _Optional[_Union[RequestDropped, _Mapping]] = ..., joined: _Optional[_Union[JoinedInstance, _Mapping]] = ..., parted: _Optional[_Union[LostInstance, _Mapping]] = ..., standing: _Optional[_Union[Standing, _Mapping]] = ..., closed: bool = ..., stopped: bool = ..., answer: _Optional[_Union[Answer, _Mapping]] = ..., region_change: _Optional[_Union[RegionChange, _Mapping]] = ...) -> None: ...

class AcceptorSettings(_message.Message):
    __slots__ = ("name", "host", "port", "reachable_host", "max_message_bytes", "queue_samples", "stream_requests", "reflection", "clock_zero_ns", "plan", "models", "wire", "shared_memory_regions")
    NAME_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    PORT_FIELD_NUMBER: _ClassVar[int]
    REACHABLE_HOST_FIELD_NUMBER: _ClassVar[int]
    MAX_MESSAGE_BYTES_FIELD_NUMBER: _ClassVar[int]
    QUEUE_SAMPLES_FIELD_NUMBER: _ClassVar[int]
    STREAM_REQUESTS_FIELD_NUMBER: _ClassVar[int]
    REFLECTION_FIELD_NUMBER: _ClassVar[int]
    CLOCK_ZERO_NS_FIELD_NUMBER: _ClassVar[int]
    PLAN_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    WIRE_FIELD_NUMBER: _ClassVar[int]
    SHARED_MEMORY_REGIONS_FIELD_NUMBER: _ClassVar[int]
    name: str
    host: str
    port: int
    reachable_host: str
    max_message_bytes: int
    queue_samples: int
    stream_requests: int
    reflection: bool
    clock_zero_ns: int
    plan: str
    models: _containers.RepeatedCompositeFieldContainer[ModelTensors]
    wire: str
    shared_memory_regions: int
    def __init__(self, name: _Optional[str] = ..., host: _Optional[str] = ..., port: _Optional[int] = ..., reachable_host: _Optional[str] = ..., max_message_bytes: _Optional[int] = ..., queue_samples: _Optional[int] = ..., stream_requests: _Optional[int] = ..., reflection: bool = ..., clock_zero_ns: _Optional[int] = ..., plan: _Optional[str] = ..., models: _Optional[_Iterable[_Union[ModelTensors, _Mapping]]] = ..., wire: _Optional[str] = ..., shared_memory_regions: _Optional[int] = ...) -> None: ...

class ModelTensors(_message.Message):
    __slots__ = ("model", "version", "inputs", "outputs")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    model: str
    version: str
    inputs: _containers.RepeatedCompositeFieldContainer[TensorForm]
    outputs: _containers.RepeatedCompositeFieldContainer[TensorForm]
    def __init__(self, model: _Optional[str] = ..., version: _Optional[str] = ..., inputs: _Optional[_Iterable[_Union[TensorForm, _Mapping]]] = ..., outputs: _Optional[_Iterable[_Union[TensorForm, _Mapping]]] = ...) -> None: ...

class TensorForm(_message.Message):
    __slots__ = ("name", "datatype", "shape")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DATATYPE_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    name: str
    datatype: str
    shape: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, name: _Optional[str] = ..., datatype: _Optional[str] = ..., shape: _Optional[_Iterable[int]] = ...) -> None: ...

class Listening(_message.Message):
    __slots__ = ("link",)
    LINK_FIELD_NUMBER: _ClassVar[int]
    link: str
    def __init__(self, link: _Optional[str] = ...) -> None: ...

class Broken(_message.Message):
    __slots__ = ("reason",)
    REASON_FIELD_NUMBER: _ClassVar[int]
    reason: str
    def __init__(self, reason: _Optional[str] = ...) -> None: ...

class RequestArrival(_message.Message):
    __slots__ = ("request", "model", "samples", "arrival_us", "deadline_us", "priority")
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    SAMPLES_FIELD_NUMBER: _ClassVar[int]
    ARRIVAL_US_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_US_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    request: int
    model: str
    samples: int
    arrival_us: int
    deadline_us: int
    priority: int
    def __init__(self, request: _Optional[int] = ..., model: _Optional[str] = ..., samples: _Optional[int] = ..., arrival_us: _Optional[int] = ..., deadline_us: _Optional[int] = ..., priority: _Optional[int] = ...) -> None: ...

class BatchFault(_message.Message):
    __slots__ = ("batch", "detail", "retriable")
    BATCH_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    RETRIABLE_FIELD_NUMBER: _ClassVar[int]
    batch: int
    detail: str
    retriable: bool
    def __init__(self, batch: _Optional[int] = ..., detail: _Optional[str] = ..., retriable: bool = ...) -> None: ...

class Errand(_message.Message):
    __slots__ = ("batch", "model", "samples", "first", "slices", "route", "replies", "abandon_us")
    BATCH_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    SAMPLES_FIELD_NUMBER: _ClassVar[int]
    FIRST_FIELD_NUMBER: _ClassVar[int]
    SLICES_FIELD_NUMBER: _ClassVar[int]
    ROUTE_FIELD_NUMBER: _ClassVar[int]
    REPLIES_FIELD_NUMBER: _ClassVar[int]
    ABANDON_US_FIELD_NUMBER: _ClassVar[int]
    batch: int
    model: str
    samples: int
    first: int
    slices: _containers.RepeatedCompositeFieldContainer[RowSlice]
    route: _containers.RepeatedCompositeFieldContainer[BookedHop]
    replies: _containers.RepeatedCompositeFieldContainer[_link_pb2.Reply]
    abandon_us: int
    def __init__(self, batch: _Optional[int] = ..., model: _Optional[str] = ..., samples: _Optional[int] = ..., first: _Optional[int] = ..., slices: _Optional[_Iterable[_Union[RowSlice, _Mapping]]] = ..., route: _Optional[_Iterable[_Union[BookedHop, _Mapping]]] = ..., replies: _Optional[_Iterable[_Union[_link_pb2.Reply, _Mapping]]] = ..., abandon_us: _Optional[int] = ...) -> None: ...

class RowSlice(_message.Message):
    __slots__ = ("request", "first", "count")
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    FIRST_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    request: int
    first: int
    count: int
    def __init__(self, request: _Optional[int] = ..., first: _Optional[int] = ..., count: _Optional[int] = ...) -> None: ...

class BookedHop(_message.Message):
    __slots__ = ("instance", "start_us", "end_us", "sequence", "stage", "first", "count")
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    START_US_FIELD_NUMBER: _ClassVar[int]
    END_US_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    STAGE_FIELD_NUMBER: _ClassVar[int]
    FIRST_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    instance: str
    start_us: int
    end_us: int
    sequence: int
    stage: int
    first: int
    count: int
    def __init__(self, instance: _Optional[str] = ..., start_us: _Optional[int] = ..., end_us: _Optional[int] = ..., sequence: _Optional[int] = ..., stage: _Optional[int] = ..., first: _Optional[int] = ..., count: _Optional[int] = ...) -> None: ...

class RequestAnswered(_message.Message):
    __slots__ = ("request", "met_deadline")
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    MET_DEADLINE_FIELD_NUMBER: _ClassVar[int]
    request: int
    met_deadline: bool
    def __init__(self, request: _Optional[int] = ..., met_deadline: bool = ...) -> None: ...

class RequestDropped(_message.Message):
    __slots__ = ("request", "reason", "detail")
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    request: int
    reason: str
    detail: str
    def __init__(self, request: _Optional[int] = ..., reason: _Optional[str] = ..., detail: _Optional[str] = ...) -> None: ...

class JoinedInstance(_message.Message):
    __slots__ = ("instance", "address")
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    instance: str
    address: str
    def __init__(self, instance: _Optional[str] = ..., address: _Optional[str] = ...) -> None: ...

class LostInstance(_message.Message):
    __slots__ = ("instance", "address")
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    instance: str
    address: str
    def __init__(self, instance: _Optional[str] = ..., address: _Optional[str] = ...) -> None: ...

class Standing(_message.Message):
    __slots__ = ("serving", "emulated", "unready")
    class UnreadyEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    SERVING_FIELD_NUMBER: _ClassVar[int]
    EMULATED_FIELD_NUMBER: _ClassVar[int]
    UNREADY_FIELD_NUMBER: _ClassVar[int]
    serving: bool
    emulated: bool
    unready: _containers.ScalarMap[str, str]
    def __init__(self, serving: bool = ..., emulated: bool = ..., unready: _Optional[_Mapping[str, str]] = ...) -> None: ...

class Question(_message.Message):
    __slots__ = ("number", "statistics", "register", "unregister")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    STATISTICS_FIELD_NUMBER: _ClassVar[int]
    REGISTER_FIELD_NUMBER: _ClassVar[int]
    UNREGISTER_FIELD_NUMBER: _ClassVar[int]
    number: int
    statistics: bool
    register: SharedRegion
    unregister: str
    def __init__(self, number: _Optional[int] = ..., statistics: bool = ..., register: _Optional[_Union[SharedRegion, _Mapping]] = ..., unregister: _Optional[str] = ...) -> None: ...

class Answer(_message.Message):
    __slots__ = ("asked", "status", "details", "response")
    ASKED_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    DETAILS_FIELD_NUMBER: _ClassVar[int]
    RESPONSE_FIELD_NUMBER: _ClassVar[int]
    asked: int
    status: str
    details: str
    response: bytes
    def __init__(self, asked: _Optional[int] = ..., status: _Optional[str] = ..., details: _Optional[str] = ..., response: _Optional[bytes] = ...) -> None: ...

class SharedRegion(_message.Message):
    __slots__ = ("name", "key", "offset", "byte_size", "path")
    NAME_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    BYTE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    name: str
    key: str
    offset: int
    byte_size: int
    path: str
    def __init__(self, name: _Optional[str] = ..., key: _Optional[str] = ..., offset: _Optional[int] = ..., byte_size: _Optional[int] = ..., path: _Optional[str] = ...) -> None: ...

class RegionChange(_message.Message):
    __slots__ = ("number", "opened", "closed")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    OPENED_FIELD_NUMBER: _ClassVar[int]
    CLOSED_FIELD_NUMBER: _ClassVar[int]
    number: int
    opened: _containers.RepeatedCompositeFieldContainer[SharedRegion]
    closed: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, number: _Optional[int] = ..., opened: _Optional[_Iterable[_Union[SharedRegion, _Mapping]]] = ..., closed: _Optional[_Iterable[str]] = ...) -> None: ...

class RegionChangeMade(_message.Message):
    __slots__ = ("number", "problem")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    PROBLEM_FIELD_NUMBER: _ClassVar[int]
    number: int
    problem: str
    def __init__(self, number: _Optional[int] = ..., problem: _Optional[str] = ...) -> None: ...
