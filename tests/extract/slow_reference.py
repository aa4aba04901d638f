"""The measurement once more: explicit loops in float64, written from its definition and from nothing else.

Slow and plain on purpose. Only tests use it, on a handful of tokens.
"""

import numpy as np

EPSILON = 1e-5


def shares(whole, parts, order):
    """{name: contribution} of the named parts of a sum; all 0 where no part comes closer to it than nothing does."""
    size = np.linalg.norm(whole, ord=order)
    closer = {name: size - np.linalg.norm(whole - part, ord=order) for name, part in parts.items()}
    if max(closer.values()) <= 0:
        return dict.fromkeys(parts, 0.0)
    floored = {name: max(value, EPSILON) for name, value in closer.items()}
    return {name: value / sum(floored.values()) for name, value in floored.items()}


def layer_shares(layer, prompt, order=1):
    """(attention, feed-forward) of one prompt: a list per position of {part name: contribution}.

    Part names: "residual", "bias", ("head", key, head), "ffn".
    """
    residual = layer.residual_before[prompt].double().numpy()
    between = layer.residual_between[prompt].double().numpy()
    written = layer.feed_forward[prompt].double().numpy()
    pattern = layer.pattern[prompt].double().numpy()
    value = layer.value[prompt].double().numpy()
    weight = layer.output_weight.double().numpy()
    head_count, positions, _ = pattern.shape
    size = value.shape[-1]
    attention, feed_forward = [], []
    for query in range(positions):
        parts = {"residual": residual[query]}
        for key in range(positions):
            if not layer.attendable[prompt, query, key]:
                continue
            for head in range(head_count):
                vector = value[head // (head_count // len(value)), key]
                output = weight[:, head * size : (head + 1) * size] @ vector
                parts["head", key, head] = pattern[head, query, key] * output
        if layer.output_bias is not None:
            parts["bias"] = layer.output_bias.double().numpy()
        attention.append(shares(sum(parts.values()), parts, order))
        both = {"residual": between[query], "ffn": written[query]}
        feed_forward.append(shares(between[query] + written[query], both, order))
    return attention, feed_forward


def cut(contributions, tau):
    """Parts above τ, renormalised; none where nothing survives."""
    kept = {name: value for name, value in contributions.items() if value > tau}
    return {name: value / sum(kept.values()) for name, value in kept.items()}


def walk(layers, tau, target, head_count):
    """{component id: list of (query, key or None, contribution)} on the route of one target.

    `layers` holds (attention, feed-forward) as layer_shares gives them, bottom to top.
    """
    carried = {}
    reached = {target}
    for index in reversed(range(len(layers))):
        attention, feed_forward = layers[index]
        below = set()
        for query in sorted(reached):
            after = cut(feed_forward[query], tau)
            if "ffn" in after:
                carried.setdefault(f"L{index}F", []).append((query, None, after["ffn"]))
            if not after:
                continue
            for part, value in cut(attention[query], tau).items():
                if part == "residual":
                    below.add(query)
                elif part != "bias":
                    _, key, head = part
                    below.add(key)
                    carried.setdefault(f"L{index}H{head}", []).append((query, key, value))
        reached = below
    return carried
