"""Hostile input for property tests, and what may come of it: a result, or a refusal in one line."""

import copy
import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from timecourse.errors import LONGEST, UserError

fuzzed = settings(
    max_examples=150,
    derandomize=True,  # the same examples in every run
    database=None,
    deadline=timedelta(seconds=5),  # a hang is a failure
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)

TEXTS = [
    *("", " ", ".", "..", "../../outside", "/etc/passwd", "/", "~nobody-here/x", "hf://", "-rf", "*", "${HOME}"),
    *("a\0b", "a\nb", "a\r\nb", "\x1b[31m", "\u2028", "\u202e", "\ud800", "\udcff", "é" * 300, "x" * 5000, "[bold]"),
    *("{", "{}", "{0}", "{!r}", "{:>9}", "{{}}", "%s", "&#99999999999;", "'; drop table x; --", "(?P<step>"),
    *("NaN", "1e999", "1e-99999999", "1e99999999x", "5x"),
]
NUMBERS = [0, -1, 1, 2**15, 2**31, 2**63, 2**64, 10**400, 0.5, -0.0, 1e308, float("inf"), float("nan")]

# What no JSON or TOML value gives: other syntax, other encodings, more digits and brackets than a parser takes.
DOCUMENTS = [
    *(b"", b"{", b"[]", b"null", b"\xff\xfe", b"\xef\xbb\xbf{}", b"\0", b"9" * 5000, b"-" * 5000, b'"\\ud800"'),
    *(b"[" * 100_000, b'{"a":' * 100_000, b"a=" + b"[" * 100_000, b"a=" + b"9" * 5000, b"a=" + b"{b=" * 3000),
    *(b"[a]\n" * 2, b"a." * 900 + b"a=1"),
]

texts = st.sampled_from(TEXTS) | st.text(st.characters(), max_size=12)
scalars = st.none() | st.booleans() | st.sampled_from(NUMBERS) | st.integers() | st.floats() | texts
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3), max_leaves=6
)
documents = st.sampled_from(DOCUMENTS) | st.binary(max_size=40) | values.map(lambda one: json.dumps(one).encode())


@st.composite
def altered(draw: st.DrawFn, valid: Any) -> Any:
    """A valid value of which one to three parts, at any depth, were replaced, removed or repeated."""
    content = copy.deepcopy(valid)
    for _ in range(draw(st.integers(1, 3))):
        node = content
        while node:
            key = draw(st.sampled_from(list(node) if isinstance(node, dict) else range(len(node))))
            if isinstance(node[key], dict | list) and node[key] and draw(st.integers(0, 3)):
                node = node[key]
                continue
            change = draw(st.sampled_from(["replace"] * 4 + ["remove", "repeat"]))
            if change == "replace":
                node[key] = draw(values)
            elif change == "remove":
                del node[key]
            elif isinstance(node, list):
                node.append(node[key])
            else:
                node[draw(texts)] = node[key]
            break
    return content


def files_like(valid: Any) -> st.SearchStrategy[bytes]:
    """The bytes of a JSON file that is more or less like a valid one."""
    return altered(valid).map(lambda one: json.dumps(one).encode()) | documents


def refusal(call: Callable[[], Any]) -> str | None:
    """What a call that raises a UserError says, which is one line that can be shown; None where it returns.

    Any other exception is a bug, and passed on.
    """
    try:
        call()
    except UserError as error:
        message = str(error)
        assert message and message.isprintable() and len(message) <= LONGEST + 3
        return message
    return None
