"""What a head writes, found by taking it out of the real model, is the sum of its parts over the keys."""

import pytest
import torch

from tests.extract.families.reference import SOURCES
from tests.extract.families.shapes import SHAPES, each, measured, prompts
from timecourse.extract.contributions import value_outputs


def written_by_heads(layer):
    """[B, n, H, d]: every head's parts on their way to the stream, summed over keys."""
    gain = 1.0 if layer.output_gain is None else layer.output_gain[:, None]
    divisor = 1.0 if layer.output_divisor is None else layer.output_divisor[:, None, :, None]
    heads = value_outputs(layer.value, layer.output_weight * gain, heads=layer.pattern.shape[1])
    return torch.einsum("bhqk,bkhd->bqhd", layer.pattern / divisor, heads)


class Intervened:
    """An untouched eager model in which one head of one block can be silenced before the output projection."""

    def __init__(self, shape, index):
        self.source = SOURCES[shape.model_type]
        self.model = shape.build()
        self.config = self.model.config.get_text_config()
        self.block = self.model.get_submodule(self.source.blocks)[index]
        self.projection = self.block.get_submodule(self.source.output)
        self.is_parallel = self.source.can_be_parallel and self.config.use_parallel_residual

    def run(self, head=None):
        """(the stream after attention, or after a parallel block; the FFN's output; the projection's output)."""
        seen = {}
        handles = [
            self.block.get_submodule(self.source.feed_forward).register_forward_hook(_output_into(seen, "ffn")),
            self.projection.register_forward_hook(_output_into(seen, "projected")),
        ]
        if self.is_parallel:
            handles.append(self.block.register_forward_hook(_output_into(seen, "stream")))
        else:
            reader = self.block.get_submodule(self.source.reads_after_attention)
            handles.append(reader.register_forward_pre_hook(_input_into(seen, "stream"), with_kwargs=True))
        if head is not None:
            handles.append(self.projection.register_forward_pre_hook(self._silence(head)))
        with torch.no_grad():
            ids, mask = prompts()
            self.model(input_ids=ids, attention_mask=mask, use_cache=False)
        for handle in handles:
            handle.remove()
        return seen["stream"], seen["ffn"], seen["projected"]

    def _silence(self, head):
        def hook(_module, inputs):
            size = inputs[0].shape[-1] // self.config.num_attention_heads
            changed = inputs[0].clone()
            changed[..., head * size : (head + 1) * size] = 0
            return (changed,)

        return hook

    def freeze_the_norm(self, projected):
        """Make the norm after attention divide by what it divides these outputs by, whatever it is given."""
        if self.source.norms is None:
            return
        norm = self.block.get_submodule(self.source.norms[0])
        divisor = (projected.double().pow(2).mean(-1, keepdim=True) + self.config.rms_norm_eps).sqrt()
        gain = self.source.gain_offset + norm.weight.double()
        norm.forward = lambda written: (gain * written.double() / divisor).to(written.dtype)


def _output_into(seen, name):
    def hook(_module, _inputs, output):
        seen[name] = (output[0] if isinstance(output, tuple) else output).clone()

    return hook


def _input_into(seen, name):
    def hook(_module, inputs, kwargs):
        seen[name] = (inputs[0] if inputs else kwargs["hidden_states"]).clone()

    return hook


@pytest.mark.parametrize("shape", each(SHAPES))
def test_silencing_a_head_takes_its_parts_from_the_stream(shape):
    layers, _ = measured(shape)
    present = prompts()[1].bool()
    for index, layer in enumerate(layers):
        intervened = Intervened(shape, index)
        clean, clean_ffn, projected = intervened.run()
        intervened.freeze_the_norm(projected)
        bound = 1e-5 * max(1.0, float(clean[present].abs().max()))
        parts = written_by_heads(layer)
        changes_ffn = False
        for head in range(parts.shape[2]):
            stream, ffn, _ = intervened.run(head)
            part = parts[:, :, head][present]
            assert float(((clean - stream)[present] - part).abs().max()) <= bound
            assert float(part.abs().max()) > 10 * bound, "nothing to take out"
            changes_ffn |= not torch.equal(ffn, clean_ffn)
        # in a parallel block the FFN reads the stream before attention
        is_parallel = shape.family.is_parallel(intervened.config.to_dict())
        assert changes_ffn != is_parallel
        assert (layer.residual_between is None) == is_parallel
