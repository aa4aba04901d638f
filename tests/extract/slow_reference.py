"""The measurement once more: explicit loops in float64, written from its definition and from nothing else.

Slow and plain on purpose. Only tests use it, on a handful of tokens. Parts of a sum are named "residual", "bias", "ffn"
and ("head", key, head); the sums of a block at one position are (attention, feed-forward), or (all,) where it is
parallel.
"""

import numpy as np

EPSILON = 1e-5


def proximities(whole, parts, order):
    """{name: proximity} of the named parts of a sum, at least ε; None where no part is closer to it than nothing is."""
    size = np.linalg.norm(whole, ord=order)
    closer = {name: size - np.linalg.norm(whole - part, ord=order) for name, part in parts.items()}
    return {name: max(value, EPSILON) for name, value in closer.items()} if max(closer.values()) > 0 else None


def cut(contributions, tau):
    """Parts above τ, renormalised; none where nothing survives."""
    kept = {name: value for name, value in contributions.items() if value > tau}
    total = sum(kept.values())
    return {name: value / total for name, value in kept.items()}


def walk(blocks, tau, target):
    """{(block, component): list of (query, key or None, contribution)} on the route of one target.

    `blocks` holds the sums by position, bottom to top, each sum as {name: contribution}. A component is a head's number
    or "ffn".
    """
    carried = {}
    reached = {target}
    for index in reversed(range(len(blocks))):
        below = set()
        for query in sorted(reached):
            sums = [cut(one, tau) for one in blocks[index][query]]
            if "ffn" in sums[-1]:
                carried.setdefault((index, "ffn"), []).append((query, None, sums[-1]["ffn"]))
            if len(sums) == 1:
                stays = "residual" in sums[0] or "ffn" in sums[0]
            elif not sums[1]:
                continue  # neither the residual nor the FFN survives: the attention sum is not entered
            else:
                stays = "residual" in sums[0]
            if stays:
                below.add(query)
            for part, value in sums[0].items():
                if part[0] == "head":
                    _, key, head = part
                    below.add(key)
                    carried.setdefault((index, head), []).append((query, key, value))
        reached = below
    return carried


def degenerate_sums(blocks, tau, position):
    """How many of a position's sums have no part left at this τ."""
    return sum(not cut(one, tau) for block in blocks for one in block[position])
