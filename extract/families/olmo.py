"""OLMo 1 (and 0424, 0724): sequential pre-norm blocks, LayerNorm without parameters, `clip_qkv` in some versions."""

from timecourse.extract.families.base import Family

OLMO = Family(name="OLMo", model_types=("olmo",), topology="sequential_pre_norm")
