"""A family cannot be added without examples, odd shapes and a reference of its own."""

import pytest
from transformers import AutoConfig

from tests.extract.families.reference import SOURCES
from tests.extract.families.shapes import EXAMPLES, SHAPES, odd_shapes
from timecourse.extract.families import FAMILIES, family_of


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_every_family_is_verified(family):
    assert any(shape.family is family for shape in EXAMPLES), "no examples"
    for model_type in family.model_types:
        assert model_type in SOURCES, "no reference in tests/extract/families/reference.py"
        assert family_of(model_type, "main") is family, "another family takes it first"
    odd = odd_shapes(family)  # KeyError: no shapes of its own in tests/extract/families/shapes.py
    assert len(odd) >= 5 and all(any(str(one) == str(shape) for shape in SHAPES) for one in odd)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_the_shapes_show_every_term_of_the_family(family):
    """A term that no shape has could be forgotten unseen."""
    shapes = [shape for shape in SHAPES if shape.family is family]
    configs = [shape.build().config.get_text_config() for shape in shapes]
    kinds = {family.is_parallel(config.to_dict()) for config in configs}
    assert kinds == ({True, False} if family.name == "GPT-NeoX" else {False})
    for key in (family.residual_multiplier, family.logits_divisor):
        assert key is None or any(getattr(config, key) != 1.0 for config in configs)
    if family.logits_softcap is not None:
        assert any(getattr(config, family.logits_softcap) is not None for config in configs)
    if hasattr(configs[0], "attention_bias"):
        assert {bool(config.attention_bias) for config in configs} == {True, False}
    assert {config.num_hidden_layers > config.num_attention_heads for config in configs} == {True, False}


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_a_config_that_says_nothing_means_what_the_library_takes_it_to_mean(family):
    """Checkpoints are described from their config.json, models from the library's config."""
    for model_type in family.model_types:
        assert family.is_parallel({}) == family.is_parallel(AutoConfig.for_model(model_type).to_dict())
