"""The raw tables: their schemas, and how one extraction, or the ablations of one, is written as parquet.

One extraction is one checkpoint measured once with one set of facts and settings. Every key stands inside the files, so
that a file that is moved or listed out of context still says what it is. Rows are sorted by their primary key.
"""

from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

SCHEMA_VERSION = 2
"""Version of these tables; stands in every checkpoint row and in every commit file.

1: the six tables of an extraction. 2: `log_prob_mismatched` in predictions.
"""

_text = pa.dictionary(pa.int32(), pa.string())


def _table(key: list[str], *columns: tuple[str, pa.DataType, bool]) -> pa.Schema:
    """Schema with the primary key in its metadata; each column is (name, type, nullable)."""
    return pa.schema(
        [pa.field(name, kind, nullable=nullable) for name, kind, nullable in columns],
        metadata={"primary_key": ",".join(key)},
    )


TABLES: dict[str, pa.Schema] = {
    "checkpoint": _table(
        ["extraction_id"],
        ("extraction_id", pa.string(), False),
        ("schema_version", pa.int16(), False),
        ("series_id", pa.string(), False),
        ("checkpoint_id", pa.string(), False),  # <series>/<checkpoint name>
        ("checkpoint_name", pa.string(), False),
        ("model", pa.string(), False),  # where the weights came from, without machine paths
        ("commit_sha", pa.string(), True),  # revision of a hub repository
        ("phase", pa.string(), False),  # pretraining, post-training, ...
        ("stage", pa.string(), True),
        ("branch", pa.string(), False),
        ("step", pa.int64(), True),  # null where the name states none (main)
        ("tokens_reported", pa.int64(), True),  # training tokens as the name states them
        ("tokens_computed", pa.int64(), True),  # training tokens as the trainer recorded them
        ("weights_sha256", pa.string(), False),
        ("facts_sha256", pa.string(), False),
        ("tokenizer_sha256", pa.string(), False),
        ("family", pa.string(), False),
        ("topology", pa.string(), False),  # sequential or parallel, then pre_, post_ or sandwich_norm
        ("layer_count", pa.int16(), False),
        ("head_count", pa.int16(), False),
        ("kv_head_count", pa.int16(), False),
        ("hidden_size", pa.int32(), False),
        ("vocabulary_size", pa.int32(), False),
        ("parameter_count", pa.int64(), False),
        ("setting_id", pa.string(), False),
        ("tau_ids", pa.list_(pa.string()), False),  # as set: 0.01, 5x
        ("taus", pa.list_(pa.float64()), False),  # their values for this model
        ("norm", pa.string(), False),  # l1 or l2
        ("dtype", pa.string(), False),
        ("device", pa.string(), False),
        ("completeness_error_max", pa.float64(), False),
        ("lens_error_max", pa.float64(), False),
        ("degenerate_share", pa.float64(), False),
        ("prompt_count", pa.int32(), False),
        ("extractor_version", pa.int16(), False),
        ("versions", pa.string(), False),  # JSON: library -> version
        ("seconds_by_phase", pa.string(), False),  # JSON: phase -> seconds
    ),
    "prompts": _table(
        ["extraction_id", "prompt_id"],
        ("extraction_id", _text, False),
        ("prompt_id", pa.int32(), False),
        ("relation_id", _text, False),
        ("relation_group", _text, False),
        ("template_id", pa.int16(), False),
        ("template", _text, False),
        ("fact_id", _text, False),
        ("subject", _text, False),
        ("object", _text, False),
        ("covariates", _text, True),  # JSON: name -> number
    ),
    "prompt_tokens": _table(
        ["extraction_id", "prompt_id", "position"],
        ("extraction_id", _text, False),
        ("prompt_id", pa.int32(), False),
        ("position", pa.int16(), False),
        ("token_id", pa.int32(), False),
        ("token", _text, False),
        ("span_role", _text, False),  # special, template, subject, answer
        ("is_answer_predicting", pa.bool_(), False),
        ("is_special", pa.bool_(), False),
    ),
    "attributions": _table(
        ["extraction_id", "tau_id", "prompt_id", "position", "component_id"],
        ("extraction_id", _text, False),
        ("tau_id", _text, False),
        ("prompt_id", pa.int32(), False),
        ("position", pa.int16(), False),  # the target position t
        ("component_id", _text, False),
        ("score", pa.float32(), False),
        ("peak", pa.float32(), False),
        ("edges", pa.int32(), False),
        ("score_direct", pa.float32(), False),
        ("score_subject", pa.float32(), True),  # by key; null for FFNs
        ("score_answer", pa.float32(), True),
        ("score_template", pa.float32(), True),
        ("score_first", pa.float32(), True),
    ),
    "contributions": _table(
        ["extraction_id", "prompt_id", "position", "component_id"],
        ("extraction_id", _text, False),
        ("prompt_id", pa.int32(), False),
        ("position", pa.int16(), False),
        # a component; L3RA / L3RF, the residual in layer 3's attention / FFN sum; L3BA, what is left of the bias
        ("component_id", _text, False),
        ("c_direct", pa.float32(), False),
        ("stream_norm", pa.float32(), True),  # norm of the sum; on the residual's rows only
    ),
    "predictions": _table(
        ["extraction_id", "prompt_id", "answer_token_index", "readout"],
        ("extraction_id", _text, False),
        ("prompt_id", pa.int32(), False),
        ("answer_token_index", pa.int16(), False),
        ("readout", pa.int16(), False),  # -1 embedding output, l after block l, L the model's own logits
        ("position", pa.int16(), False),  # the predicting position, t - 1
        ("rank", pa.int32(), False),
        ("log_prob", pa.float32(), False),
        ("top1_token_id", pa.int32(), False),
        ("top1_token", _text, False),
        ("entropy", pa.float32(), False),  # nats
        ("rank_in_relation", pa.int32(), False),
        ("log_prob_mismatched", pa.float32(), True),  # after another fact's subject; the model's own logits only
    ),
}

ABLATION_TABLES: dict[str, pa.Schema] = {
    # What was silenced together. A set has as many rows as components; sets of one component have no other columns.
    "ablation_sets": _table(
        ["extraction_id", "set_id", "component_id"],
        ("extraction_id", _text, False),
        ("set_id", pa.int32(), False),
        ("set_kind", _text, False),  # role, random (matched to a role's set), single
        ("tau_id", _text, True),
        ("theta", _text, True),
        ("role", _text, True),
        ("relation_id", _text, True),  # of relation_answer and fact_answer
        ("half", _text, True),  # A or B: the half of the facts that gave the set
        ("random_index", pa.int16(), True),
        ("component_id", _text, False),
    ),
    "ablations": _table(
        ["extraction_id", "method", "set_id", "prompt_id", "answer_token_index"],
        ("extraction_id", _text, False),
        ("method", _text, False),  # mean, resample, zero; with _live_norm where the norm after W_O is not frozen
        ("set_id", pa.int32(), False),
        ("prompt_id", pa.int32(), False),
        ("answer_token_index", pa.int16(), False),
        ("delta_log_prob", pa.float32(), False),  # silenced minus intact, nats
        ("delta_rank", pa.int32(), False),
        ("delta_template_log_prob", pa.float32(), True),  # mean over the prompt's template tokens; null without any
    ),
}


def write_table(directory: Path, name: str, columns: Mapping[str, object]) -> int:
    """Write one raw table to `directory/<name>.parquet`, checked against its schema; returns the number of rows.

    `columns` maps every column of the schema to an array or list of equal length. Raises ValueError where a column is
    missing or unknown, OSError where the disk refuses.
    """
    schema = TABLES[name] if name in TABLES else ABLATION_TABLES[name]
    if set(columns) != set(schema.names):
        raise ValueError(f"{name}: columns {sorted(set(columns) ^ set(schema.names))} are missing or unknown")
    arrays = [_array(columns[field.name], field) for field in schema]
    table = pa.Table.from_arrays(arrays, schema=schema)
    table.validate(full=True)
    # A dictionary of floats, which hardly repeat, makes a file a quarter larger.
    words = [field.name for field in schema if not pa.types.is_floating(field.type)]
    pq.write_table(table, directory / f"{name}.parquet", compression="zstd", compression_level=6, use_dictionary=words)
    return int(table.num_rows)


def _array(values: object, field: pa.Field) -> pa.Array:
    """`values` as an array of the field's type; text leaves dictionary-encoded, each word once in the dictionary."""
    if isinstance(values, pa.DictionaryArray) and len(values.dictionary.unique()) < len(values.dictionary):
        values = values.dictionary_decode()  # pyarrow would reserve room for all and write what happens to be in it
    if pa.types.is_dictionary(field.type) and not isinstance(values, pa.DictionaryArray):
        return pa.array(values, type=pa.string()).dictionary_encode().cast(field.type)
    return values.cast(field.type) if isinstance(values, pa.Array) else pa.array(values, type=field.type)


def is_readable(path: Path) -> bool:
    """Whether a parquet file is there and whole. Raises OSError where the disk does not give it back."""
    try:
        pq.read_table(path)
    except (FileNotFoundError, ValueError, NotImplementedError):
        return False
    except OSError as error:  # parquet's own, of what it cannot decode, has no number
        if error.errno is not None:
            raise
        return False
    return True
