"""Numbers in words: every page writes counts, shares and missing values the same way."""

import json

NOT_AVAILABLE = "n/a"

ROLE_LABELS = {
    "general": "general",
    "entity": "entity",
    "relation_answer": "relation answer",
    "fact_answer": "fact answer",
    "inactive": "inactive",
}
STATUS_LABELS = {
    "used": "used",
    "left_out": "left out",
    "alias": "alias",
    "duplicate": "duplicate",
    "unusable": "unusable",
    "failed": "failed",
    "gone": "no longer offered",
}
VERDICT_LABELS = {
    "supported": "supported",
    "contradicted": "contradicted",
    "undecided": "undecided",
    "not_assessable": "not assessable",
}
PAIR_LABELS = {
    "own": "this series",
    "same_recipe": "another seed of its recipe",
    "other_recipe": "another recipe",
    "same_series": "this series, measured otherwise",
    "not_compared": "not compared",
}
STATISTIC_LABELS = {
    "accuracy": "accuracy",
    "mean_log_prob": "log-probability (nats)",
    "active_share": "active share",
    "general_share": "general share",
    "entity_share": "entity share",
    "relation_answer_share": "relation answer share",
    "fact_answer_share": "fact answer share",
    "specific_share": "specific share",
    "turnover": "turnover",
    "corrected_overlap": "overlap with reference",
}
KIND_NOUNS = {"head": ("head", "heads"), "ffn": ("FFN", "FFNs")}


def count(number: int | None, singular: str, plural: str | None = None) -> str:
    """`1 fact`, `20 facts`, `n/a facts`."""
    noun = singular if number == 1 else plural or singular + "s"
    return f"{NOT_AVAILABLE if number is None else format(number, ',')} {noun}"


def kind_count(number: int, kind: str) -> str:
    """`1 head`, `8 FFNs`."""
    return count(number, *KIND_NOUNS[kind])


def percent(share: float | None) -> str:
    """A share in [0, 1] as per cent with one decimal: `43.8 %`."""
    return NOT_AVAILABLE if share is None else f"{100 * share:.1f}\u00a0%"


def decimal(number: float | None, digits: int = 3) -> str:
    """A number with a fixed count of decimals."""
    return NOT_AVAILABLE if number is None else f"{number:,.{digits}f}"


def signed(number: float | None, digits: int = 2) -> str:
    """As `decimal`, with a minus sign, and none before zero."""
    return decimal(None if number is None else round(number, digits) + 0.0, digits).replace("-", "−")


def scientific(number: float | None) -> str:
    """A very small number: `3.1e-07`."""
    return NOT_AVAILABLE if number is None else f"{number:.1e}"


def integer(number: int | None) -> str:
    """A count with thousands separators."""
    return NOT_AVAILABLE if number is None else f"{number:,}"


def interval(low: float | None, high: float | None) -> str:
    """A 95 % interval of a share; in words where there is none."""
    if low is None or high is None:
        return "no interval: fewer than 2 facts"
    return f"95 % interval {percent(low)} to {percent(high)}"


def listing(parts: list[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def short_hash(value: str | None) -> str:
    """The first 12 characters of a hash."""
    return NOT_AVAILABLE if value is None else value[:12]


def json_rows(text: str | None) -> str:
    """A JSON list with one element per line; the text itself where it is none."""
    if not text:
        return NOT_AVAILABLE
    try:
        rows = json.loads(text)
    except ValueError:
        return text
    if not isinstance(rows, list):
        return text
    return "\n".join(json.dumps(row, ensure_ascii=False) for row in rows) or NOT_AVAILABLE
