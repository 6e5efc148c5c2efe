"""Medians and spreads over rounds."""


def median(values):
    """The middle value (the mean of the two middle ones); None of nothing."""
    values = sorted(value for value in values if value is not None)
    if not values:
        return None
    middle = len(values) // 2
    if len(values) % 2:
        return values[middle]
    return (values[middle - 1] + values[middle]) / 2


def column(rounds, metric):
    """One metric of every round that has it."""
    return [figures[metric] for figures in rounds if figures.get(metric) is not None]


def middle(rounds, metric):
    """The median of a metric over rounds."""
    return median(column(rounds, metric))


def ratios(ours, theirs, metric):
    """(median, least, greatest) of ours / theirs, by rounds: interleaved ones belong together.

    With different numbers of rounds (one of the two failed in some) the medians are compared and
    the spread is that of the extremes.
    """
    left, right = column(ours, metric), column(theirs, metric)
    if not left or not right or min(right) <= 0:
        return None
    if len(left) == len(right):
        each = [a / b for a, b in zip(left, right)]
    else:
        each = [min(left) / max(right), median(left) / median(right), max(left) / min(right)]
    return median(each), min(each), max(each)


def differences(ours, theirs, metric):
    """(median, least, greatest) of ours - theirs by rounds."""
    left, right = column(ours, metric), column(theirs, metric)
    if not left or len(left) != len(right):
        return None
    each = [a - b for a, b in zip(left, right)]
    return median(each), min(each), max(each)
