"""The supported architectures, found by the `model_type` of a checkpoint's config.json."""

from timecourse.errors import UserError
from timecourse.extract.families.apertus import APERTUS
from timecourse.extract.families.base import Family
from timecourse.extract.families.gemma import GEMMA2, GEMMA3, GEMMA3_MULTIMODAL
from timecourse.extract.families.gpt2 import GPT2
from timecourse.extract.families.gpt_neox import GPT_NEOX
from timecourse.extract.families.granite import GRANITE
from timecourse.extract.families.llama import LLAMA
from timecourse.extract.families.mistral import MISTRAL
from timecourse.extract.families.olmo import OLMO
from timecourse.extract.families.olmo2 import OLMO2
from timecourse.extract.families.olmo3 import OLMO3
from timecourse.extract.families.olmoe import OLMOE
from timecourse.extract.families.qwen import QWEN2, QWEN3
from timecourse.extract.families.smollm3 import SMOLLM3

FAMILIES = (
    OLMO,
    OLMO2,
    OLMO3,
    OLMOE,
    GPT_NEOX,
    GPT2,
    LLAMA,
    SMOLLM3,
    MISTRAL,
    QWEN2,
    QWEN3,
    GEMMA2,
    GEMMA3,
    GEMMA3_MULTIMODAL,
    APERTUS,
    GRANITE,
)


def family_of(model_type: str | None, checkpoint_name: str) -> Family:
    """The family that handles `model_type`. Raises UserError that lists the supported ones."""
    for family in FAMILIES:
        if model_type in family.model_types:
            return family
    supported = ", ".join(sorted(name for family in FAMILIES for name in family.model_types))
    raise UserError(
        f"checkpoint {checkpoint_name!r} is of the unsupported architecture {model_type!r}; supported: {supported}"
    )
