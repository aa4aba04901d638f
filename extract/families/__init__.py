"""The supported architectures, found by the `model_type` of a checkpoint's config.json."""

from timecourse.errors import UserError
from timecourse.extract.families.base import Family
from timecourse.extract.families.olmo import OLMO

FAMILIES = (OLMO,)


def family_of(model_type: str | None, checkpoint_name: str) -> Family:
    """The family that handles `model_type`. Raises UserError that lists the supported ones."""
    for family in FAMILIES:
        if model_type in family.model_types:
            return family
    supported = ", ".join(sorted(name for family in FAMILIES for name in family.model_types))
    raise UserError(
        f"checkpoint {checkpoint_name!r} is of the unsupported architecture {model_type!r}; supported: {supported}"
    )
