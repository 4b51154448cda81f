"""Masks as bits, 64 pixels of a row in a word: counting, comparing and growing them touches an eighth of the memory.

A packed mask has shape (..., height, words). Bit i of word w is column ``64 w + i``; bits beyond the width are 0,
except in the result of `grown`, which is only of use together with a mask.
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Shaped, UInt64

Bits = UInt64[np.ndarray, "*frames height words"]

_WORD = 64


def pack(mask: Shaped[np.ndarray, "*frames height width"]) -> Bits:
    """Pack masks of any number type; every value but 0 is foreground."""
    octets = np.packbits(mask, axis=-1, bitorder="little")
    missing = -octets.shape[-1] % (_WORD // 8)
    if missing:
        octets = np.concatenate([octets, np.zeros((*octets.shape[:-1], missing), np.uint8)], axis=-1)
    return octets.view("<u8")


def count(bits: Bits) -> int:
    """Number of foreground pixels."""
    return int(np.bitwise_count(bits).sum(dtype=np.int64))


def edges(bits: Bits, width: int) -> Bits:
    """Pixels of one mask that differ from their right, lower or lower right neighbor.

    The last row is compared with the right neighbor only, the last column with the lower one only, their corner with
    none.

    Args:
        bits: One packed mask.
        width: Columns of the mask.
    """
    right = _shifted(bits, -1)
    has_right = ~_columns_from(width - 1, bits.shape[-1])
    edge: Bits = (bits ^ right) & has_right
    edge[:-1] |= bits[:-1] ^ bits[1:]
    edge[:-1] |= (bits[:-1] ^ right[1:]) & has_right
    return edge


def grown(bits: Bits, radius: int) -> Bits:
    """Pixels at most `radius` away from a foreground pixel: dilation by a disk, background beyond the borders.

    The disk is taken row by row from its tip to its middle: what is collected so far moves up and down by a row while
    the width of the next row of the disk is added.

    Args:
        bits: One packed mask.
        radius: In pixels, by Euclidean distance; 0 gives the mask itself.

    Returns:
        The mask, with undefined bits beyond its width.
    """
    wide, half_width = bits, 0
    out = np.zeros_like(bits)
    for row in range(radius, -1, -1):
        needed = math.isqrt(radius * radius - row * row)
        while half_width < needed:
            # Larger steps would reach some columns only by way of columns beyond the border, where bits are lost.
            step = min(needed - half_width, half_width + 1)
            wide = wide | _shifted(wide, step) | _shifted(wide, -step)
            half_width += step
        taller = out.copy()
        taller[1:] |= out[:-1]
        taller[:-1] |= out[1:]
        out = np.bitwise_or(taller, wide, out=taller)
    return out


def common_window(one: Bits, other: Bits) -> tuple[slice, slice]:
    """Rows and words that hold the foreground of both masks; an empty window when there is none."""
    both = one | other
    rows, words = np.flatnonzero(both.any(axis=1)), np.flatnonzero(both.any(axis=0))
    if not len(rows):
        return slice(0, 0), slice(0, 0)
    return slice(rows[0], rows[-1] + 1), slice(words[0], words[-1] + 1)


def _shifted(bits: Bits, columns: int) -> Bits:
    """Every pixel moved to the right, or to the left for a negative number of columns; what leaves is lost."""
    words, rest = divmod(abs(columns), _WORD)
    out = np.zeros_like(bits)
    reach = bits.shape[-1] - words
    if reach <= 0:
        return out
    near, far = np.uint64(rest), np.uint64(_WORD - rest)
    if columns >= 0:
        np.left_shift(bits[..., :reach], near, out=out[..., words:])
        if rest:
            out[..., words + 1 :] |= bits[..., : reach - 1] >> far
    else:
        np.right_shift(bits[..., words:], near, out=out[..., :reach])
        if rest:
            out[..., : reach - 1] |= bits[..., words + 1 :] << far
    return out


def _columns_from(first: int, words: int) -> UInt64[np.ndarray, "words"]:
    """Ones in all columns from the given one on."""
    out = np.full(words, np.iinfo(np.uint64).max, dtype=np.uint64)
    out[: first // _WORD] = 0
    if first // _WORD < words:
        out[first // _WORD] <<= np.uint64(first % _WORD)
    return out
