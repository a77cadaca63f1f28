from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class AckLevel(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ACK_LEVEL_UNSPECIFIED: _ClassVar[AckLevel]
    ACK_LEVEL_SCORED: _ClassVar[AckLevel]
    ACK_LEVEL_DURABLE: _ClassVar[AckLevel]

class Level(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    LEVEL_NONE: _ClassVar[Level]
    LEVEL_FLEET: _ClassVar[Level]
    LEVEL_CLASS: _ClassVar[Level]
    LEVEL_ASSET: _ClassVar[Level]

class RowStatus(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ROW_STATUS_OK: _ClassVar[RowStatus]
    ROW_STATUS_DUPLICATE: _ClassVar[RowStatus]
    ROW_STATUS_SUPERSEDED: _ClassVar[RowStatus]
    ROW_STATUS_TOO_LATE: _ClassVar[RowStatus]
    ROW_STATUS_FUTURE: _ClassVar[RowStatus]
    ROW_STATUS_UNKNOWN_HANDLE: _ClassVar[RowStatus]
    ROW_STATUS_WRONG_WIDTH: _ClassVar[RowStatus]
    ROW_STATUS_NO_MODEL: _ClassVar[RowStatus]
    ROW_STATUS_TAKEN: _ClassVar[RowStatus]
    ROW_STATUS_UNKNOWN_CODE: _ClassVar[RowStatus]
    ROW_STATUS_BLOCKED: _ClassVar[RowStatus]

class Health(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    HEALTH_GOOD: _ClassVar[Health]
    HEALTH_MISSING: _ClassVar[Health]
    HEALTH_NOT_FINITE: _ClassVar[Health]
    HEALTH_OUT_OF_RANGE: _ClassVar[Health]
    HEALTH_GAPS: _ClassVar[Health]
    HEALTH_LATE: _ClassVar[Health]
    HEALTH_STUCK: _ClassVar[Health]

class AlarmState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ALARM_STATE_NONE: _ClassVar[AlarmState]
    ALARM_STATE_PENDING: _ClassVar[AlarmState]
    ALARM_STATE_RAISED: _ClassVar[AlarmState]
    ALARM_STATE_ACTIVE: _ClassVar[AlarmState]
    ALARM_STATE_CLEARED: _ClassVar[AlarmState]
ACK_LEVEL_UNSPECIFIED: AckLevel
ACK_LEVEL_SCORED: AckLevel
ACK_LEVEL_DURABLE: AckLevel
LEVEL_NONE: Level
LEVEL_FLEET: Level
LEVEL_CLASS: Level
LEVEL_ASSET: Level
ROW_STATUS_OK: RowStatus
ROW_STATUS_DUPLICATE: RowStatus
ROW_STATUS_SUPERSEDED: RowStatus
ROW_STATUS_TOO_LATE: RowStatus
ROW_STATUS_FUTURE: RowStatus
ROW_STATUS_UNKNOWN_HANDLE: RowStatus
ROW_STATUS_WRONG_WIDTH: RowStatus
ROW_STATUS_NO_MODEL: RowStatus
ROW_STATUS_TAKEN: RowStatus
ROW_STATUS_UNKNOWN_CODE: RowStatus
ROW_STATUS_BLOCKED: RowStatus
HEALTH_GOOD: Health
HEALTH_MISSING: Health
HEALTH_NOT_FINITE: Health
HEALTH_OUT_OF_RANGE: Health
HEALTH_GAPS: Health
HEALTH_LATE: Health
HEALTH_STUCK: Health
ALARM_STATE_NONE: AlarmState
ALARM_STATE_PENDING: AlarmState
ALARM_STATE_RAISED: AlarmState
ALARM_STATE_ACTIVE: AlarmState
ALARM_STATE_CLEARED: AlarmState

class ScoreRequest(_message.Message):
    __slots__ = ("open", "readings", "events")
    OPEN_FIELD_NUMBER: _ClassVar[int]
    READINGS_FIELD_NUMBER: _ClassVar[int]
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    open: Open
    readings: ReadingBlock
    events: EventBlock
    def __init__(self, open: _Optional[_Union[Open, _Mapping]] = ..., readings: _Optional[_Union[ReadingBlock, _Mapping]] = ..., events: _Optional[_Union[EventBlock, _Mapping]] = ...) -> None: ...

class ScoreResponse(_message.Message):
    __slots__ = ("opened", "scores", "revisions")
    OPENED_FIELD_NUMBER: _ClassVar[int]
    SCORES_FIELD_NUMBER: _ClassVar[int]
    REVISIONS_FIELD_NUMBER: _ClassVar[int]
    opened: Opened
    scores: ScoreBlock
    revisions: ScoreBlock
    def __init__(self, opened: _Optional[_Union[Opened, _Mapping]] = ..., scores: _Optional[_Union[ScoreBlock, _Mapping]] = ..., revisions: _Optional[_Union[ScoreBlock, _Mapping]] = ...) -> None: ...

class StreamRequest(_message.Message):
    __slots__ = ("open", "readings", "events")
    OPEN_FIELD_NUMBER: _ClassVar[int]
    READINGS_FIELD_NUMBER: _ClassVar[int]
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    open: Open
    readings: ReadingBlock
    events: EventBlock
    def __init__(self, open: _Optional[_Union[Open, _Mapping]] = ..., readings: _Optional[_Union[ReadingBlock, _Mapping]] = ..., events: _Optional[_Union[EventBlock, _Mapping]] = ...) -> None: ...

class StreamResponse(_message.Message):
    __slots__ = ("opened", "scores", "revisions", "ack", "drain")
    OPENED_FIELD_NUMBER: _ClassVar[int]
    SCORES_FIELD_NUMBER: _ClassVar[int]
    REVISIONS_FIELD_NUMBER: _ClassVar[int]
    ACK_FIELD_NUMBER: _ClassVar[int]
    DRAIN_FIELD_NUMBER: _ClassVar[int]
    opened: Opened
    scores: ScoreBlock
    revisions: ScoreBlock
    ack: Ack
    drain: Drain
    def __init__(self, opened: _Optional[_Union[Opened, _Mapping]] = ..., scores: _Optional[_Union[ScoreBlock, _Mapping]] = ..., revisions: _Optional[_Union[ScoreBlock, _Mapping]] = ..., ack: _Optional[_Union[Ack, _Mapping]] = ..., drain: _Optional[_Union[Drain, _Mapping]] = ...) -> None: ...

class Open(_message.Message):
    __slots__ = ("gateway", "epoch", "asset_class", "sensors", "asset_ids", "event_codes", "ack", "want_features", "attributes", "attribute_values", "reasons_top", "reasons_always")
    GATEWAY_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    ASSET_CLASS_FIELD_NUMBER: _ClassVar[int]
    SENSORS_FIELD_NUMBER: _ClassVar[int]
    ASSET_IDS_FIELD_NUMBER: _ClassVar[int]
    EVENT_CODES_FIELD_NUMBER: _ClassVar[int]
    ACK_FIELD_NUMBER: _ClassVar[int]
    WANT_FEATURES_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTE_VALUES_FIELD_NUMBER: _ClassVar[int]
    REASONS_TOP_FIELD_NUMBER: _ClassVar[int]
    REASONS_ALWAYS_FIELD_NUMBER: _ClassVar[int]
    gateway: str
    epoch: int
    asset_class: str
    sensors: _containers.RepeatedScalarFieldContainer[str]
    asset_ids: _containers.RepeatedScalarFieldContainer[str]
    event_codes: _containers.RepeatedScalarFieldContainer[str]
    ack: AckLevel
    want_features: bool
    attributes: _containers.RepeatedScalarFieldContainer[str]
    attribute_values: _containers.RepeatedScalarFieldContainer[float]
    reasons_top: int
    reasons_always: bool
    def __init__(self, gateway: _Optional[str] = ..., epoch: _Optional[int] = ..., asset_class: _Optional[str] = ..., sensors: _Optional[_Iterable[str]] = ..., asset_ids: _Optional[_Iterable[str]] = ..., event_codes: _Optional[_Iterable[str]] = ..., ack: _Optional[_Union[AckLevel, str]] = ..., want_features: _Optional[bool] = ..., attributes: _Optional[_Iterable[str]] = ..., attribute_values: _Optional[_Iterable[float]] = ..., reasons_top: _Optional[int] = ..., reasons_always: _Optional[bool] = ...) -> None: ...

class Opened(_message.Message):
    __slots__ = ("handles", "release", "pack", "resume_sequence", "outputs", "features", "missing_sensors", "rows_max", "levels")
    HANDLES_FIELD_NUMBER: _ClassVar[int]
    RELEASE_FIELD_NUMBER: _ClassVar[int]
    PACK_FIELD_NUMBER: _ClassVar[int]
    RESUME_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    MISSING_SENSORS_FIELD_NUMBER: _ClassVar[int]
    ROWS_MAX_FIELD_NUMBER: _ClassVar[int]
    LEVELS_FIELD_NUMBER: _ClassVar[int]
    handles: _containers.RepeatedScalarFieldContainer[int]
    release: int
    pack: str
    resume_sequence: int
    outputs: _containers.RepeatedScalarFieldContainer[str]
    features: _containers.RepeatedScalarFieldContainer[str]
    missing_sensors: _containers.RepeatedScalarFieldContainer[str]
    rows_max: int
    levels: _containers.RepeatedScalarFieldContainer[Level]
    def __init__(self, handles: _Optional[_Iterable[int]] = ..., release: _Optional[int] = ..., pack: _Optional[str] = ..., resume_sequence: _Optional[int] = ..., outputs: _Optional[_Iterable[str]] = ..., features: _Optional[_Iterable[str]] = ..., missing_sensors: _Optional[_Iterable[str]] = ..., rows_max: _Optional[int] = ..., levels: _Optional[_Iterable[_Union[Level, str]]] = ...) -> None: ...

class ReadingBlock(_message.Message):
    __slots__ = ("sequence", "handles", "times", "values", "historical", "settled_sequence")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    HANDLES_FIELD_NUMBER: _ClassVar[int]
    TIMES_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    HISTORICAL_FIELD_NUMBER: _ClassVar[int]
    SETTLED_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    handles: _containers.RepeatedScalarFieldContainer[int]
    times: _containers.RepeatedScalarFieldContainer[int]
    values: _containers.RepeatedScalarFieldContainer[float]
    historical: bool
    settled_sequence: int
    def __init__(self, sequence: _Optional[int] = ..., handles: _Optional[_Iterable[int]] = ..., times: _Optional[_Iterable[int]] = ..., values: _Optional[_Iterable[float]] = ..., historical: _Optional[bool] = ..., settled_sequence: _Optional[int] = ...) -> None: ...

class EventBlock(_message.Message):
    __slots__ = ("sequence", "handles", "times", "codes", "settled_sequence")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    HANDLES_FIELD_NUMBER: _ClassVar[int]
    TIMES_FIELD_NUMBER: _ClassVar[int]
    CODES_FIELD_NUMBER: _ClassVar[int]
    SETTLED_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    handles: _containers.RepeatedScalarFieldContainer[int]
    times: _containers.RepeatedScalarFieldContainer[int]
    codes: _containers.RepeatedScalarFieldContainer[int]
    settled_sequence: int
    def __init__(self, sequence: _Optional[int] = ..., handles: _Optional[_Iterable[int]] = ..., times: _Optional[_Iterable[int]] = ..., codes: _Optional[_Iterable[int]] = ..., settled_sequence: _Optional[int] = ...) -> None: ...

class ScoreBlock(_message.Message):
    __slots__ = ("sequence", "release", "handles", "times", "status", "values", "levels", "alarms", "health", "features", "reason_rows", "reason_outputs", "reason_features", "reason_values")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    RELEASE_FIELD_NUMBER: _ClassVar[int]
    HANDLES_FIELD_NUMBER: _ClassVar[int]
    TIMES_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    LEVELS_FIELD_NUMBER: _ClassVar[int]
    ALARMS_FIELD_NUMBER: _ClassVar[int]
    HEALTH_FIELD_NUMBER: _ClassVar[int]
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    REASON_ROWS_FIELD_NUMBER: _ClassVar[int]
    REASON_OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    REASON_FEATURES_FIELD_NUMBER: _ClassVar[int]
    REASON_VALUES_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    release: int
    handles: _containers.RepeatedScalarFieldContainer[int]
    times: _containers.RepeatedScalarFieldContainer[int]
    status: bytes
    values: _containers.RepeatedScalarFieldContainer[float]
    levels: bytes
    alarms: bytes
    health: bytes
    features: _containers.RepeatedScalarFieldContainer[float]
    reason_rows: _containers.RepeatedScalarFieldContainer[int]
    reason_outputs: _containers.RepeatedScalarFieldContainer[int]
    reason_features: _containers.RepeatedScalarFieldContainer[int]
    reason_values: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, sequence: _Optional[int] = ..., release: _Optional[int] = ..., handles: _Optional[_Iterable[int]] = ..., times: _Optional[_Iterable[int]] = ..., status: _Optional[bytes] = ..., values: _Optional[_Iterable[float]] = ..., levels: _Optional[bytes] = ..., alarms: _Optional[bytes] = ..., health: _Optional[bytes] = ..., features: _Optional[_Iterable[float]] = ..., reason_rows: _Optional[_Iterable[int]] = ..., reason_outputs: _Optional[_Iterable[int]] = ..., reason_features: _Optional[_Iterable[int]] = ..., reason_values: _Optional[_Iterable[float]] = ...) -> None: ...

class Ack(_message.Message):
    __slots__ = ("sequence",)
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    def __init__(self, sequence: _Optional[int] = ...) -> None: ...

class Drain(_message.Message):
    __slots__ = ("reason",)
    REASON_FIELD_NUMBER: _ClassVar[int]
    reason: str
    def __init__(self, reason: _Optional[str] = ...) -> None: ...
