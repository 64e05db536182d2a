"""The loops over pixels: a strip of source rows becomes rows of target cells.

All of them add in a fixed order (down the rows of a cell, then along its columns), so a result
depends on the cell's own pixels alone, whatever strip they came in.  A stored value is a value
where ``least <= value <= greatest`` and it is not nodata; NaN never is.

Cells of one row lie side by side, so for means and extremes the rows are worked through whole: that
is what the machine's vector units can do.  Median and mode gather each cell's pixels.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"
from __future__ import annotations

import numpy as np

from muster.raster.kernels import kernel

TILE = 2048
"""Columns that are worked on at a time: their sums stay in the cache."""

FEW = 24
"""Values that insertion sorts as fast as anything."""

TIE = 1e-9
"""Weights that differ by less than this share of a cell's are equal."""


@kernel
def _clamp(value, least, greatest):
    return max(least, min(value, greatest))


@kernel
def add_rows(source, first, weights, scaling, limits, start, total, weight) -> None:
    """Add rows up column by column.

    Parameters
    ----------
    source : ndarray, (row, col)
        The strip as stored.
    first : int
        Its first row that is added; one for each weight.
    weights : ndarray, (row,), float64
    scaling : tuple of float
        value = stored × scaling[0] + scaling[1].
    limits : tuple of float
        Nodata (NaN for none), least and greatest value.
    start : int
        Its first column that is added.
    total, weight : ndarray, (col,), float64
        Where Σ weight × value and Σ weight go.
    """
    scale, offset = scaling
    nodata, least, greatest = limits
    columns = len(total)
    total[:] = 0.0
    weight[:] = 0.0
    for number in range(len(weights)):
        w = weights[number]
        row = source[first + number, start : start + columns]
        for c in range(columns):
            stored = np.float64(row[c])
            value = stored * scale + offset
            valid = (value >= least) & (value <= greatest) & (stored != nodata)
            total[c] += w * value if valid else 0.0
            weight[c] += w if valid else 0.0


@kernel
def weighted_rows(source, origin, inside, rows, cols, scaling, limits, judge, result, weight):
    """Find the weighted mean or sum of every target cell.

    Parameters
    ----------
    source : ndarray, (row, col)
        The strip as stored.
    origin : tuple of int
        Source row and column of its upper left pixel.  Columns that cells name beyond the strip
        are taken to have no value.
    inside : tuple
        (first source row, row behind the last) that there is, and (col,) bool: which of the strip's
        columns there are.
    rows, cols : tuple of ndarray
        ``first``, ``begin`` and ``weights`` of :class:`muster.resampling.compute.axes.Axis`.
    scaling, limits
        As in :func:`add_rows`.
    judge : tuple
        (mean, row totals, column totals, least fraction): whether sums are divided by weights; the
        weights of each row and column if all their pixels held values; the share of a cell's weight
        that must be of values.
    result : ndarray, (target row, target col), floating-point
        NaN where there is no value.
    weight : ndarray, (target row, target col), float64
        Where Σ weight goes; nowhere when it has no rows.
    """
    row_first, row_begin, row_weights = rows
    col_first, col_begin, col_weights = cols
    (top, bottom), there = inside
    mean, row_totals, col_totals, least_fraction = judge
    everywhere = there.all()
    height, width = result.shape
    columns_total = np.empty(TILE)
    columns_weight = np.empty(TILE)
    left, right = origin[1], origin[1] + source.shape[1]
    cell = 0
    while cell < width:
        # As many cells as fit into a tile; one alone may be wider than that.
        begin = _clamp(col_first[cell], left, right)
        last = cell
        end = _clamp(col_first[cell] + col_begin[cell + 1] - col_begin[cell], left, right)
        while last + 1 < width:
            next_end = col_first[last + 1] + col_begin[last + 2] - col_begin[last + 1]
            next_end = _clamp(next_end, left, right)
            if next_end - begin > TILE:
                break
            last += 1
            end = next_end
        if end - begin > len(columns_total):
            columns_total = np.empty(end - begin)
            columns_weight = np.empty(end - begin)
        total = columns_total[: end - begin]
        weights = columns_weight[: end - begin]
        # Whole blocks side by side, all there: no index has to be looked up.
        size = col_begin[cell + 1] - col_begin[cell]
        blocks = everywhere and end - begin == size * (last + 1 - cell)
        for j in range(cell, last + 1):
            blocks = blocks and col_first[j] == begin + size * (j - cell)
        for k in range(col_begin[cell], col_begin[last + 1]):
            blocks = blocks and col_weights[k] == 1.0
        for t in range(height):
            first = max(row_first[t], top)
            stop = min(row_first[t] + row_begin[t + 1] - row_begin[t], bottom)
            skip = row_begin[t] + first - row_first[t]
            down = row_weights[skip : skip + max(0, stop - first)]
            add_rows(source, first - origin[0], down, scaling, limits, begin - left, total, weights)
            for j in range(cell, last + 1):
                s = 0.0
                n = 0.0
                if blocks:
                    at = size * (j - cell)
                    for c in range(at, at + size):
                        s += total[c]
                        n += weights[c]
                else:
                    # Weights, tile and strip begin elsewhere: the sums give the place in each.
                    base = col_begin[j] - col_first[j]
                    start = _clamp(col_first[j], left, right)
                    end = _clamp(col_begin[j + 1] - base, left, right)
                    for c in range(start, end):
                        if everywhere or there[c - left]:
                            s += col_weights[base + c] * total[c - begin]
                            n += col_weights[base + c] * weights[c - begin]
                if n >= least_fraction * (row_totals[t] * col_totals[j]) and n > 0.0:
                    result[t, j] = s / n if mean else s
                else:
                    result[t, j] = np.nan
                if weight.shape[0] > 0:
                    weight[t, j] = n
        cell = last + 1


@kernel
def extreme_rows(source, origin, inside, rows, cols, scaling, limits, judge, result):
    """Find the least (sign 1) or greatest (sign −1) value of every target cell.

    Parameters are those of :func:`weighted_rows`, but that ``judge`` begins with the sign.
    """
    row_first, row_begin, row_weights = rows
    col_first, col_begin, col_weights = cols
    (top, bottom), there = inside
    sign, row_totals, col_totals, least_fraction = judge
    scale, offset = scaling
    nodata, least, greatest = limits
    columns = source.shape[1]
    extreme = np.empty(columns)
    valid_weight = np.empty(columns)
    left, right = origin[1], origin[1] + columns
    last = len(col_first) - 1
    begin = _clamp(col_first[0], left, right) - left
    end = _clamp(col_first[last] + col_begin[last + 1] - col_begin[last], left, right) - left
    for t in range(result.shape[0]):
        extreme[begin:end] = np.inf
        valid_weight[begin:end] = 0.0
        first = max(row_first[t], top)
        stop = min(row_first[t] + row_begin[t + 1] - row_begin[t], bottom)
        for r in range(first, stop):
            w = row_weights[row_begin[t] + r - row_first[t]]
            row = source[r - origin[0]]
            for c in range(begin, end):
                stored = np.float64(row[c])
                value = stored * scale + offset
                valid = (value >= least) & (value <= greatest) & (stored != nodata)
                signed = sign * value if valid else np.inf
                extreme[c] = min(extreme[c], signed)
                valid_weight[c] += w if valid else 0.0
        for j in range(result.shape[1]):
            best = np.inf
            n = 0.0
            base = col_begin[j] - col_first[j]
            start = _clamp(col_first[j], left, right)
            for c in range(start, _clamp(col_begin[j + 1] - base, left, right)):
                if there[c - left]:
                    best = min(best, extreme[c - left])
                    n += col_weights[base + c] * valid_weight[c - left]
            enough = n >= least_fraction * (row_totals[t] * col_totals[j]) and n > 0.0
            result[t, j] = sign * best if enough else np.nan


@kernel
def gather_rows(source, origin, inside, rows, cols, scaling, limits, judge, result):
    """Find the weighted median, or (mode) the value of the greatest weight, of every cell.

    Parameters are those of :func:`weighted_rows`, but that ``judge`` begins with whether it is the
    mode.
    """
    row_first, row_begin, row_weights = rows
    col_first, col_begin, col_weights = cols
    (top, bottom), there = inside
    mode, row_totals, col_totals, least_fraction = judge
    scale, offset = scaling
    nodata, least, greatest = limits
    left, right = origin[1], origin[1] + source.shape[1]
    most = 1
    for t in range(result.shape[0]):
        most = max(most, min(row_begin[t + 1] - row_begin[t], bottom - top))
    widest = 1
    for j in range(result.shape[1]):
        widest = max(widest, min(col_begin[j + 1] - col_begin[j], right - left))
    values = np.empty(most * widest)
    weights = np.empty(most * widest)
    for t in range(result.shape[0]):
        first = max(row_first[t], top)
        stop = min(row_first[t] + row_begin[t + 1] - row_begin[t], bottom)
        for j in range(result.shape[1]):
            count = 0
            n = 0.0
            even = True
            base = col_begin[j] - col_first[j]
            start = _clamp(col_first[j], left, right)
            end = _clamp(col_begin[j + 1] - base, left, right)
            for r in range(first, stop):
                down = row_weights[row_begin[t] + r - row_first[t]]
                for c in range(start, end):
                    if not there[c - left]:
                        continue
                    stored = np.float64(source[r - origin[0], c - left])
                    value = stored * scale + offset
                    if value >= least and value <= greatest and stored != nodata:
                        w = down * col_weights[base + c]
                        values[count] = value
                        weights[count] = w
                        even = even and w == weights[0]
                        n += w
                        count += 1
            if n < least_fraction * (row_totals[t] * col_totals[j]) or n <= 0.0:
                result[t, j] = np.nan
                continue
            _sort(values, weights, count)
            if even and not mode:
                result[t, j] = _middle(values, count)
            elif even:
                result[t, j] = _most_frequent(values, count)
            elif mode:
                result[t, j] = _heaviest(values, weights, count, n)
            else:
                result[t, j] = _halfway(values, weights, count, n)


@kernel
def _sort(values, weights, count):
    """Sort the first values in place, and their weights with them, without a byte of memory.

    Insertion where they are few, and heapsort (Williams 1964, doi:10.1145/512274.512284).
    """
    if count <= FEW:
        for i in range(1, count):
            value, weight = values[i], weights[i]
            j = i
            while j > 0 and values[j - 1] > value:
                values[j], weights[j] = values[j - 1], weights[j - 1]
                j -= 1
            values[j], weights[j] = value, weight
        return
    start = count // 2
    end = count
    while end > 1:
        if start > 0:  # from any order to a heap
            start -= 1
        else:  # the greatest to its place behind the heap
            end -= 1
            _swap(values, weights, 0, end)
        root = start
        while 2 * root + 1 < end:
            child = 2 * root + 1
            if child + 1 < end and values[child + 1] > values[child]:
                child += 1
            if values[child] <= values[root]:
                break
            _swap(values, weights, root, child)
            root = child


@kernel
def _swap(values, weights, i, j):
    value, weight = values[i], weights[i]
    values[i], weights[i] = values[j], weights[j]
    values[j], weights[j] = value, weight


@kernel
def _middle(values, count):
    half = count // 2
    if count % 2:
        return values[half]
    return (values[half - 1] + values[half]) / 2


@kernel
def _most_frequent(values, count):
    best = values[0]
    most = 0
    run = 0
    for i in range(count):
        run = run + 1 if i > 0 and values[i] == values[i - 1] else 1
        if run > most:
            most = run
            best = values[i]
    return best


@kernel
def _heaviest(values, weights, count, total):
    best = values[0]
    most = 0.0
    run = 0.0
    for i in range(count):
        same = i > 0 and values[i] == values[i - 1]
        run = (run if same else 0.0) + weights[i]
        ends = i + 1 == count or values[i + 1] != values[i]
        if ends and run > most + TIE * total:
            most = run
            best = values[i]
    return best


@kernel
def _halfway(values, weights, count, total):
    below = 0.0
    for i in range(count):
        below += weights[i]
        if below >= total / 2 - TIE * total:
            if below <= total / 2 + TIE * total and i + 1 < count:
                return (values[i] + values[i + 1]) / 2
            return values[i]
    return values[count - 1]


@kernel
def pick(source, origin, inside, row_at, col_at, scaling, limits, clear, result):
    """Take one pixel for every target cell, or look there whether there is a value.

    Parameters
    ----------
    source, origin, inside, scaling, limits
        As in :func:`weighted_rows`.
    row_at, col_at : ndarray, int64
        Source row of each target row, source column of each target column.
    clear : bool
        Whether the pixels' values go to ``result``; else only NaN does, where there is none.
    result : ndarray, (target row, target col), floating-point
        NaN where there is no value.
    """
    (top, bottom), there = inside
    scale, offset = scaling
    nodata, least, greatest = limits
    for t in range(result.shape[0]):
        r = row_at[t]
        for j in range(result.shape[1]):
            c = col_at[j] - origin[1]
            valid = False
            if top <= r < bottom and 0 <= c < len(there) and there[c]:
                stored = np.float64(source[r - origin[0], c])
                value = stored * scale + offset
                if value >= least and value <= greatest and stored != nodata:
                    valid = True
                    if clear:
                        result[t, j] = value
            if not valid:
                result[t, j] = np.nan


@kernel
def blank_others(source, classes, blank) -> None:
    """Set, in place, what is none of the sorted classes to what stands for no value."""
    for r in range(source.shape[0]):
        for c in range(source.shape[1]):
            at = np.searchsorted(classes, np.float64(source[r, c]))
            if at == len(classes) or classes[at] != np.float64(source[r, c]):
                source[r, c] = blank
