"""The JSON Schema (2020-12) of one line, for producers in other languages.

It says what the decoder says, as far as a schema can: repeated keys, the length of a line, the length of a month and
"different from each other" by part of an object are beyond it.
"""

from collections.abc import Iterable
from enum import StrEnum
from typing import Any, Final

from cryptocore.keys import KeyState
from cryptocore.lines import texts
from cryptocore.lines.vocabulary import (
    DATA_USES,
    KEK_ACTS,
    LIFE_CYCLE,
    MOTIVES,
    TOKEN_ACTS,
    VAULT_CALLS,
    Durability,
    Operation,
    Outcome,
    Phase,
    Reason,
)

Schema = dict[str, Any]

_UNSUCCESSFUL: Final = (Outcome.DENIED, Outcome.FAILED)
_CAUSES: Final = tuple(reason for reason in Reason if reason not in MOTIVES)


def line_schema() -> Schema:
    """Describe an audit event or a control line."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "keytrail line, version 1",
        "type": "object",
        "required": ["v", "type"],
        "oneOf": [_event(), _open(), _heads("heartbeat"), _heads("chain.close")],
    }


def _text(pattern: str) -> Schema:
    # `\Z` is unknown to ECMA 262, and `$` also matches before a last newline; `(?!\n)` closes that gap for both.
    return {"type": "string", "pattern": f"^(?:{pattern})$(?!\\n)"}


def _word(words: Iterable[StrEnum]) -> Schema:
    return {"enum": sorted(word.value for word in words)}


def _integer(least: int, most: int = texts.MAX_INTEGER) -> Schema:
    return {"type": "integer", "minimum": least, "maximum": most}


def _list(items: Schema, least: int, most: int | None = None) -> Schema:
    schema: Schema = {"type": "array", "items": items, "minItems": least, "uniqueItems": True}
    return schema if most is None else {**schema, "maxItems": most}


def _object(properties: Schema, required: Iterable[str]) -> Schema:
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


_TIME: Final = _text(texts.DATE + texts.TIME_OF_DAY)
_UUID: Final = _text(texts.UUID)
_KEY_ID: Final = _text(texts.HEX16)
_U16: Final = _integer(0, 0xFFFF)


def _event() -> Schema:
    properties: Schema = {
        "v": {"const": 1},
        "type": {"const": "key"},
        "id": _UUID,
        "phase": _word(Phase),
        "operation": _word(Operation),
        "outcome": _word(Outcome),
        "reason": _word(Reason),
        "occurred_at": _TIME,
        "service": _text(texts.SERVICE),
        "key": _key(),
        "claimed_key_id": _KEY_ID,
        "owner": _owner(),
        "kek": _object(
            {"vault": _text(texts.VAULT), "name": _text(texts.KEK_NAME), "version": _text(texts.KEK_VERSION)},
            ("vault", "name"),
        ),
        "token_id": _text(texts.OWNER_PART),
        "actor": _text(texts.ACTOR),
        "purpose": _text(texts.PURPOSE),
        "intent_id": _UUID,
        "call_ids": _list(_UUID, 1, texts.MAX_CALL_IDS),
        "vault_attempts": _list(_attempt(), 1, texts.MAX_CALL_IDS),
        "counts": _list(_count(), 1, texts.MAX_COUNTS),
        "recovery": {"const": True},
        "outage_grace": {"const": True},
        "host": _text(texts.HOST),
        "address": _text(texts.ADDRESS),
        "trace_id": _text(texts.TRACE_ID),
        "note": _text(texts.NOTE),
    }
    required = ("v", "type", "id", "phase", "operation", "occurred_at", "service", "actor", "purpose")
    return {**_object(properties, required), "allOf": [*_phase(), *_reason(), *_key_and_owner(), *_calls(), *_rest()]}


def _key() -> Schema:
    return _object(
        {
            "id": _KEY_ID,
            "version": _integer(1, texts.MAX_VERSION),
            "revision": _integer(1),
            "kind": {"enum": ["dek", "kek"]},
            "state": _word(KeyState),
        },
        ("id",),
    )


def _owner() -> Schema:
    part = _text(texts.OWNER_PART)
    tenant = _object({"tenant_id": part, "integration_id": part}, ("tenant_id", "integration_id"))
    return {"oneOf": [tenant, _object({"secret_name": part}, ("secret_name",))]}


def _attempt() -> Schema:
    properties = {
        "call_id": _UUID,
        "request_id": _text(texts.REQUEST_ID),
        "http_status": _integer(100, 599),
        "started_at": _TIME,
        "ended_at": _TIME,
    }
    return _object(properties, ("call_id", "started_at"))


def _count() -> Schema:
    properties = {
        "operation": _word(operation for operation in Operation if operation is not Operation.SUMMARY),
        "outcome": _word(_UNSUCCESSFUL),
        "reason": _word(_CAUSES),
        "count": _integer(1),
    }
    return _object(properties, properties)


def _where(**fields: Schema) -> Schema:
    """Match an object that has all these fields with such values."""
    return {"properties": fields, "required": list(fields)}


def _has(*names: str) -> Schema:
    return {"required": list(names)}


def _lacks(*names: str) -> Schema:
    return {"properties": dict.fromkeys(names, False)}


def _rule(condition: Schema, then: Schema, otherwise: Schema | None = None) -> Schema:
    rule = {"if": condition, "then": then}
    return rule if otherwise is None else {**rule, "else": otherwise}


def _phase() -> list[Schema]:
    return [
        _rule(_where(phase=_word([Phase.INTENT])), _lacks("outcome"), _has("outcome")),
        _rule(_where(phase=_word([Phase.OUTCOME])), _has("intent_id"), _lacks("intent_id")),
        _rule(_where(outcome=_word([Outcome.UNKNOWN])), _where(phase=_word([Phase.OUTCOME]))),
    ]


def _reason() -> list[Schema]:
    unsuccessful = _where(outcome=_word(_UNSUCCESSFUL))
    unknown = _where(outcome=_word([Outcome.UNKNOWN]))
    motive = {"anyOf": [_lacks("reason"), _where(reason=_word(MOTIVES), operation=_word(LIFE_CYCLE))]}
    crashed = {"properties": {"reason": _word([Reason.CRASHED])}}
    return [_rule(unsuccessful, _where(reason=_word(_CAUSES)), _rule(unknown, crashed, motive))]


def _key_and_owner() -> list[Schema]:
    not_known = {
        "anyOf": [
            _where(outcome=_word([*_UNSUCCESSFUL, Outcome.UNKNOWN])),
            _where(operation=_word([*TOKEN_ACTS, Operation.SUMMARY])),
        ],
    }
    return [
        _rule({"not": not_known}, _has("key")),
        _rule(_has("key"), _lacks("claimed_key_id")),
        _rule(_where(operation=_word(DATA_USES | VAULT_CALLS)), _has("owner")),
        _rule(_has("recovery"), _where(operation=_word([Operation.REENCRYPT]))),
        _rule(_has("outage_grace"), _where(operation=_word(DATA_USES))),
    ]


def _calls() -> list[Schema]:
    call, act = _word(VAULT_CALLS), _word(KEK_ACTS)
    intent = _where(operation=call, phase=_word([Phase.INTENT]))
    outcome = _where(operation=call, phase=_word([Phase.OUTCOME]))
    succeeded = _where(outcome=_word([Outcome.SUCCEEDED]))
    on_kek = _where(operation=act, kek={}, key=_where(kind={"const": "kek"}))
    begun = {"allOf": [on_kek, _where(phase=_word([Phase.INTENT]))]}
    ended = {"allOf": [on_kek, _where(phase=_word([Phase.OUTCOME]))]}
    return [
        _rule(_where(operation=call), _has("kek")),
        _rule(_where(kek=_lacks("version")), _where(operation=act)),
        _rule(intent, _has("call_ids"), _rule({"not": begun}, _lacks("call_ids"))),
        _rule(
            outcome,
            _rule(succeeded, _has("vault_attempts")),
            _rule({"not": ended}, _lacks("vault_attempts")),
        ),
    ]


def _rest() -> list[Schema]:
    summary = _where(phase=_word([Phase.SINGLE]), reason=_word([Reason.RATE_LIMITED]), counts={})
    person = {"type": "string", "pattern": f"^{texts.PERSON}"}
    return [
        _rule(_where(operation=_word([Operation.SUMMARY])), summary, _lacks("counts")),
        _rule(_has("token_id"), _where(operation=_word(TOKEN_ACTS))),
        _rule(_has("note"), _where(operation=_word(LIFE_CYCLE), actor=person)),
    ]


def _control(name: str, properties: Schema, required: Iterable[str]) -> Schema:
    shared = {
        "v": {"const": 1},
        "type": {"const": name},
        "id": _UUID,
        "at": _TIME,
        "service": _text(texts.SERVICE),
    }
    return _object({**shared, **properties}, (*shared, *required))


def _open() -> Schema:
    return _control("chain.open", {"durability": _word(Durability), "continues": _KEY_ID}, ("durability",))


def _heads(name: str) -> Schema:
    head = {"generation": _U16, "partition": _U16, "sequence": _integer(0), "digest": _text(texts.HEX32)}
    tally = {"operation": _word(Operation), "outcome": _word(Outcome), "count": _integer(1)}
    properties = {
        "heads": _list(_object(head, head), 0),
        "tallies": _list(_object(tally, tally), 0),
        "oldest_unsent_at": _TIME,
    }
    return _control(name, properties, ("heads", "tallies"))
