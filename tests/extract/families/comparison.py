"""The product's contributions and routes beside the reference's."""

import numpy as np
import torch

from tests.extract import slow_reference
from timecourse.extract.routes import KEY_GROUPS, walk_routes


def largest_excess(found, shares, rounding):
    """The largest difference of a product's contribution from the reference's, as a multiple of what is allowed.

    found: LayerContributions, bottom to top; shares, rounding: as `contributions` gives them.
    """
    worst = 0.0
    for index, layer in enumerate(found):
        for number, one in enumerate(layer.sums):
            arrays = {
                "residual": one.residual.numpy(),
                "ffn": None if one.feed_forward is None else one.feed_forward.numpy(),
                "bias": None if one.bias is None else one.bias.numpy(),
            }
            heads = None if one.heads is None else one.heads.double().numpy()
            for row, prompt in enumerate(shares):
                for query, sums in enumerate(prompt[index]):
                    assert bool(one.degenerate[row, query]) == (not any(sums[number].values()))
                    single = {name: array[row, query] for name, array in arrays.items() if array is not None}
                    by_head = None if heads is None else heads[row, query]
                    difference = _largest_difference(single, by_head, sums[number])
                    worst = max(worst, difference / rounding[row][index][query][number])
    return worst


def _largest_difference(single, by_head, expected):
    """Parts that only one of the two knows are wrong; keys that the query cannot attend to must have nothing."""
    assert set(single) == {name for name in expected if name[0] != "head"}
    differences = [abs(value - expected[name]) for name, value in single.items()]
    if by_head is not None:
        wanted = np.zeros_like(by_head)
        for name, value in expected.items():
            if name[0] == "head":
                wanted[name[1:]] = value
        assert not by_head[wanted == 0].any()
        differences.append(np.abs(by_head - wanted).max())
    assert np.isfinite(differences).all()
    return max(differences)


def clear_of(shares, nominal):
    """A threshold near the nominal one that no contribution comes close to, so that rounding moves none across it."""
    near = [
        value
        for prompt in shares
        for block in prompt
        for sums in block
        for one in sums
        for value in one.values()
        if 0.8 * nominal < value < 1.2 * nominal
    ]
    edges = np.array([0.8 * nominal, *sorted(near), 1.2 * nominal])
    widest = int(np.argmax(np.diff(edges)))
    assert edges[widest + 1] - edges[widest] > 2e-5
    return float(edges[widest : widest + 2].mean())


def key_groups_of(lengths):
    """[B, n]: every group on several keys, position 0 `first`, padding −1."""
    groups = torch.full((len(lengths), max(lengths)), -1)
    for row, length in enumerate(lengths):
        groups[row, :length] = (torch.arange(length) + row) % 3
        groups[row, 0] = KEY_GROUPS.index("first")
    return groups


def check_routes(found, shares, lengths, tau, head_count):
    """Every target's route, component by component, against the walk in plain loops; returns how many were active."""
    groups = key_groups_of(lengths)
    targets = groups >= 0
    targets[0, lengths[0] // 2] = False
    routes = walk_routes(found, tau, targets, groups)
    active = 0
    ended = routes.degenerate_sums.tolist()
    for row, length in enumerate(lengths):
        walked = [
            slow_reference.walk(shares[row], tau, target) if targets[row, target] else {} for target in range(length)
        ]
        for index, (heads, feed_forward) in enumerate(routes.layers):
            components = [_component(heads, row, head) for head in range(head_count)]
            for name, scores in [*enumerate(components), ("ffn", _component(feed_forward, row, 0))]:
                for target in range(length):
                    terms = walked[target].get((index, name), [])
                    at_target = {key: array[target] for key, array in scores.items()}
                    _check_terms(at_target, terms, groups[row].tolist(), target)
                    active += bool(terms)
                assert not scores["edges"][length:].any(), "padding has no route"
        for position in range(length):
            assert ended[row][position] == slow_reference.degenerate_sums(shares[row], tau, position)
    return active


def _component(scores, row, part):
    """{what: [targets]} of one component of one prompt."""
    names = [name for name in ("score", "peak", "edges", "direct", "by_key") if getattr(scores, name) is not None]
    return {name: getattr(scores, name)[row, :, part].double().numpy() for name in names}


def _check_terms(found, terms, groups, target):
    values = [value for *_, value in terms]
    wanted = {
        "edges": len(terms),
        "score": sum(values),
        "peak": max(values, default=0.0),
        "direct": sum(value for query, _, value in terms if query == target),
    }
    if "by_key" in found:
        wanted["by_key"] = [
            sum(value for _, key, value in terms if groups[key] == group) for group in range(len(KEY_GROUPS))
        ]
    assert found["edges"] == wanted["edges"]
    for name, value in found.items():
        assert np.abs(value - np.asarray(wanted[name])).max() <= 1e-5 + 1e-4 * np.abs(wanted[name]).max(), name
