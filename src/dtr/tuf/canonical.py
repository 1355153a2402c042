"""
Canonical JSON: the bytes that are signed, and that key ids are hashes of.

The dialect is that of OLPC as notary v1 writes it. No white space; the members of an object in the order of their
names' bytes; in texts only ``"`` and the backslash are escaped, all else, control characters too, is raw UTF-8;
numbers are integers in plain decimal digits. Writers count in 64-bit floats, so ``1.0`` and ``1e2`` are integers,
and what is beyond 2^53 is not exact, hence refused, as are fractions. Of members with the same name the last one
counts. Half of a surrogate pair becomes U+FFFD.
"""

from __future__ import annotations

import json
import re
from typing import Any

from dtr.tuf.errors import Malformed, NotCanonical

LARGEST = 16 * 1024 * 1024
"""Bytes of a file that are read at all: a collection of some 100,000 tags."""
LARGEST_INTEGER = 2**53
_DEEPEST = 64
_SURROGATE = re.compile("[\ud800-\udfff]")


def encode(value: Any) -> bytes:
    """The canonical form of what `decode` gave, or of anything like it. Raises NotCanonical."""
    try:
        return _written(value).encode()
    except UnicodeEncodeError:
        return encode(_repaired(value))
    except RecursionError:
        raise NotCanonical("the value is nested too deeply") from None


def decode(content: bytes, *, unique: bool = False) -> Any:
    """
    The value of a JSON text in UTF-8, of 16 MiB and 64 levels at most.

    With `unique`, names that are given twice in one object are refused; else the last one counts. Raises
    Malformed.
    """
    if len(content) > LARGEST:
        raise Malformed(f"the file is larger than {LARGEST} bytes")
    hook = _unique if unique else None
    try:
        value = json.loads(content.decode(), object_pairs_hook=hook, parse_constant=_no_constant)
    except Malformed:
        raise
    except RecursionError:
        raise Malformed("the file is nested too deeply") from None
    except ValueError:
        raise Malformed("the file is not JSON in UTF-8") from None
    _check_depth(value)
    return value


def _written(value: Any) -> str:
    kind = type(value)
    if kind is str:
        if "\\" in value or '"' in value:
            value = value.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{value}"'
    if kind is dict:
        return f"{{{','.join([f'{_written(name)}:{_written(value[name])}' for name in sorted(value)])}}}"
    if kind is list or kind is tuple:
        return f"[{','.join([_written(one) for one in value])}]"
    if value is None or kind is bool:
        return {None: "null", True: "true", False: "false"}[value]
    if kind is int or kind is float:
        return _number(value)
    raise NotCanonical(f"{kind.__name__} is no type of JSON")


def _number(value: float) -> str:
    """NaN and infinity are neither between the bounds nor equal to an integer."""
    if not -LARGEST_INTEGER <= value <= LARGEST_INTEGER or value != int(value):
        raise NotCanonical("a number is a fraction, or beyond 2^53")
    return str(int(value))


def _repaired(value: Any) -> Any:
    """The value with U+FFFD for each half of a surrogate pair, which UTF-8 cannot say."""
    if isinstance(value, str):
        return _SURROGATE.sub("\ufffd", value)
    if isinstance(value, dict):
        return {_repaired(name): _repaired(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_repaired(one) for one in value]
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise Malformed("a name is given twice in one object")
    return made


def _no_constant(_name: str) -> None:
    raise Malformed("the file is not JSON: NaN and Infinity are no numbers")


def _check_depth(value: Any) -> None:
    """Those who read it later may have less room to recurse than we had."""
    level = [value]
    for _ in range(_DEEPEST + 1):
        level = [one for one in level if isinstance(one, dict | list)]
        if not level:
            return
        level = [child for one in level for child in (one.values() if isinstance(one, dict) else one)]
    raise Malformed("the file is nested too deeply")
