"""Every score a second time, written from the benchmarks' definitions alone and as plainly as they can be put.

Nothing here is shared with `metrics`, and nothing is fast: whole images, one frame and one threshold at a time.
"""

import math

import numpy as np
from PIL import Image
from scipy import ndimage


def region_j(pred, target):
    """Intersection over union, per frame; nothing on both sides is 1."""
    scores = []
    for p, g in zip(np.asarray(pred) != 0, np.asarray(target) != 0, strict=True):
        union = np.sum(p | g)
        scores.append(1.0 if union == 0 else np.sum(p & g) / union)
    return np.array(scores)


def outline(mask):
    """Pixels unlike the one to the right, below or diagonally below; border rows and columns look along the border."""
    height, width = mask.shape
    edge = np.zeros((height, width), bool)
    edge[:-1, :-1] = (
        (mask[:-1, :-1] != mask[:-1, 1:]) | (mask[:-1, :-1] != mask[1:, :-1]) | (mask[:-1, :-1] != mask[1:, 1:])
    )
    edge[-1, :-1] = mask[-1, :-1] != mask[-1, 1:]
    edge[:-1, -1] = mask[:-1, -1] != mask[1:, -1]
    return edge


def boundary_f(pred, target):
    """Harmonic mean of the shares of either outline that the other one, dilated by a disk, covers."""
    pred, target = np.asarray(pred) != 0, np.asarray(target) != 0
    height, width = pred.shape[1:]
    radius = int(np.ceil(0.008 * np.sqrt(height**2 + width**2)))
    offsets = np.arange(-radius, radius + 1)
    disk = offsets[:, None] ** 2 + offsets[None, :] ** 2 <= radius**2
    scores = []
    for p, g in zip(pred, target, strict=True):
        p_edge, g_edge = outline(p), outline(g)
        n_p, n_g = p_edge.sum(), g_edge.sum()
        if n_p == 0 and n_g == 0:
            scores.append(1.0)
        elif n_p == 0 or n_g == 0:
            scores.append(0.0)
        else:
            precision = (p_edge & ndimage.binary_dilation(g_edge, disk)).sum() / n_p
            recall = (g_edge & ndimage.binary_dilation(p_edge, disk)).sum() / n_g
            scores.append(0.0 if precision + recall == 0 else 2 * precision * recall / (precision + recall))
    return np.array(scores)


def revos_r(pred, target, foreground, scale):
    """On stored bytes, which wrap; a miss costs nothing."""
    scores = []
    for p, g, f in zip(np.asarray(pred) != 0, np.asarray(target), np.asarray(foreground) != 0, strict=True):
        stored = p.astype(np.uint8) * np.uint8(scale)
        false = (np.uint8(1) - g.astype(np.uint8)) * stored
        scores.append(max(1 - float(false.astype(np.int64).sum()) / (float(f.sum()) + 1e-6), 0.0))
    return np.array(scores)


def revos_a(pred, target, scale):
    """On stored bytes too."""
    stored = (np.asarray(pred) != 0).astype(np.int64) * scale
    return np.array([np.mean(p == g) for p, g in zip(stored, np.asarray(target).astype(np.int64), strict=True)])


def sigmoid(logits):
    return 1 / (1 + np.exp(-np.asarray(logits, np.float64)))


def refavs_j(logits, target):
    scores = []
    for p, g in zip(sigmoid(logits) > 0.4, np.asarray(target) > 0, strict=True):
        if g.any():
            scores.append((p & g).sum() / ((p | g).sum() + 1e-7))
        else:
            scores.append((~p).sum() / (p.size + 1e-7))
    return float(np.mean(scores))


def refavs_curve(logits, target):
    """F at 255 thresholds for one frame with a target."""
    # Thresholds and probabilities are in single precision, where the last threshold is 1 and saturation reaches it.
    probability = sigmoid(logits).astype(np.float32)
    curve = []
    for threshold in np.linspace(0, 1 - 1e-10, 255).astype(np.float32):
        p, g = probability >= threshold, np.asarray(target) > 0
        hits = (p & g).sum()
        precision, recall = hits / (p.sum() + 1e-20), hits / (g.sum() + 1e-20)
        below = 0.3 * precision + recall
        curve.append(1.3 * precision * recall / below if below else 0.0)
    return curve


def refavs_f(logits, target):
    curves = [refavs_curve(p, g) for p, g in zip(logits, target, strict=True) if np.any(g)]
    return float(np.max(np.mean(curves, axis=0))) if curves else 0.0


def refavs_s(logits):
    marked = sigmoid(logits) > 0.5
    return math.sqrt(marked.sum() / marked.size)


def resized(mask):
    """Bilinear by the rule of image libraries without antialiasing: sample at the middle of each target pixel."""
    height, width = mask.shape
    values = (np.asarray(mask) != 0) * 255.0

    def places(length):
        at = np.clip((np.arange(256) + 0.5) * length / 256 - 0.5, 0, length - 1)
        first = np.floor(at).astype(int)
        return first, np.minimum(first + 1, length - 1), at - first

    top, bottom, down = places(height)
    left, right, along = places(width)
    upper = values[top][:, left] * (1 - along) + values[top][:, right] * along
    lower = values[bottom][:, left] * (1 - along) + values[bottom][:, right] * along
    return upper * (1 - down[:, None]) + lower * down[:, None]


def refavs_split(expressions):
    """Four expressions to a call, in order; the mean over calls of J, F and S."""
    calls = [expressions[start : start + 4] for start in range(0, len(expressions), 4)]
    results = []
    for call in calls:
        logits = np.concatenate([p for p, _ in call])
        target = np.concatenate([g for _, g in call])
        results.append((refavs_j(logits, target), refavs_f(logits, target), refavs_s(logits)))
    return np.mean(results, axis=0)


def revos_table(expressions):
    """(kind, {score: 0..1}) per expression: percent rounded to two decimals, group means, mean of the two groups."""
    table = {}
    for kind in ("referring", "reasoning"):
        rows = [
            {name: round(100 * value, 2) for name, value in scores.items()} for k, scores in expressions if k == kind
        ]
        table[kind] = {name: sum(row[name] for row in rows) / len(rows) for name in rows[0]}
        table[kind]["JF"] = (table[kind]["J"] + table[kind]["F"]) / 2
    table["overall"] = {name: (value + table["reasoning"][name]) / 2 for name, value in table["referring"].items()}
    return table


def read_gray(path):
    """A PNG as the official programs read it: one channel of 8 bits."""
    return np.asarray(Image.open(path).convert("L"))
