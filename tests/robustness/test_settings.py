"""Settings of any shape: a settings file, flags and assignments give settings that can be used, or a refusal."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.robustness.hostile import TEXTS, documents, fuzzed, refusal, texts, values
from timecourse.config import Settings, load_settings
from timecourse.errors import UsageError
from timecourse.extract.checkpoints.names import compile_pattern, parse_name
from timecourse.extract.checkpoints.selection import Selection

SECTIONS = {name: list(field.annotation.model_fields) for name, field in Settings.model_fields.items()}
KEYS = [(section, key) for section, keys in SECTIONS.items() for key in keys]


def use(settings: Settings) -> None:
    """Whatever is done with settings before anything is looked for on the disk."""
    assert settings.series_id and settings.phases
    assert settings.derivation["theta"] and 0 < float(settings.derivation["theta"]) < 1
    for tau in settings.measurement_settings.taus:
        assert len(tau) < 150 and 0 < float(tau.removesuffix("x")) < math.inf
    if settings.series.pattern is not None:
        compile_pattern(settings.series.pattern)
    chosen = settings.series.select
    Selection(chosen.every, chosen.log_spaced, chosen.from_step, chosen.to_step, chosen.names)
    assert all(0 <= step < 2**63 for step in settings.series.steps.values())
    if settings.machine.max_cache_gb is not None:
        assert 0 < settings.machine.max_cache_gb < 1e9
    assert 0.5 <= settings.machine.build_memory_gb < 1e9
    for path in (settings.lake.directory, settings.facts.directory, *(Path(where) for _, where in settings.phases)):
        assert "\0" not in str(path) and str(path).encode()


def toml(value: Any) -> str:
    """A JSON value in TOML's words, where it has any."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {toml(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    return str(value) if isinstance(value, float) and not math.isfinite(value) else json.dumps(value)


@fuzzed
@given(st.dictionaries(st.sampled_from(KEYS), values, max_size=3), st.booleans())
def test_values_of_any_type_by_file_or_by_flag(tmp_path, chosen, is_by_file):
    chosen = {("series", "checkpoints"): "runs"} | chosen
    file = tmp_path / "settings.toml"
    file.write_text("")
    if not is_by_file:
        refusal(lambda: use(load_settings(file, chosen)))
        return
    lines = [f"[{section}]\n{key} = {toml(value)}\n" for (section, key), value in chosen.items()]
    file.write_bytes("".join(sorted(lines)).encode("utf-8", "surrogatepass"))
    refusal(lambda: use(load_settings(file, {})))


@fuzzed
@given(documents)
def test_a_settings_file_of_any_content(tmp_path, content):
    file = tmp_path / "settings.toml"
    file.write_bytes(content)
    refusal(lambda: use(load_settings(file, {("series", "checkpoints"): "runs"})))


@fuzzed
@given(st.lists(texts | st.builds("{0[0]}.{0[1]}={1}".format, st.sampled_from(KEYS), texts), max_size=3))
def test_assignments_of_any_text(assignments):
    refusal(lambda: use(load_settings(None, {("series", "checkpoints"): "runs"}, assignments)))


@fuzzed
@given(texts | st.builds("{}(?P<step>{})".format, texts, texts), texts)
def test_a_pattern_of_any_text(text, name):
    assert refusal(lambda: parse_name(name, compile_pattern(text))) is not None or "(?P<step>" in text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[machine]\nmax_cache_gb = inf", "machine.max_cache_gb"),
        ("[machine]\nbuild_memory_gb = 1e300", "machine.build_memory_gb"),
        ("[machine]\nthreads = 99999999999", "machine.threads"),
        ("[series.steps]\nmain = 9223372036854775808", "series.steps.main"),
        ("[series.select]\nfrom_step = 9223372036854775808", "series.select.from_step"),
        ("[series]\ntokens_per_step = 9223372036854775808", "series.tokens_per_step"),
        ('[measurement]\ntau = "1e-99999999"', "tau '1e-99999999'"),  # a decimal would round it to 0
        ('[measurement]\ntau = "1e99999999x"', "tau '1e99999999x'"),
        ('[lake]\ndirectory = "a\\u0000b"', "lake.directory"),
        ('[facts]\ndirectory = "a\\nb"', "facts.directory"),
        ('[series]\ncheckpoints = "~nobody-here/x"', "home of a user"),
        ('[series]\ncheckpoints = "/"', "say --series NAME"),
        ('[series]\ncheckpoints = "hf://"', "say --series NAME"),
        ('"a\\nb" = 1', "unknown setting 'a\\nb'"),
        ('[series]\nname = ["' + "x" * 10_000 + '"]', "series.name"),
        ("a = " + "[" * 5000, "is not TOML"),
        ("a = " + "9" * 5000, "is not TOML"),
    ],
)
def test_what_would_break_later_is_refused(tmp_path, text, message):
    file = tmp_path / "settings.toml"
    file.write_text(text)
    flags = {} if "checkpoints" in text else {("series", "checkpoints"): "runs"}
    said = refusal(lambda: use(load_settings(file, flags)))
    assert said is not None and message in said and len(said) < 500


def test_a_link_that_leads_to_itself_names_no_series(tmp_path):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(UsageError, match="link that leads to itself"):
        use(load_settings(None, {("series", "checkpoints"): str(tmp_path / "loop")}))


@pytest.mark.parametrize("text", TEXTS)
def test_every_text_as_a_series_name(text):
    flags = {("series", "checkpoints"): "runs", ("series", "name"): text}
    refusal(lambda: use(load_settings(None, flags)))
