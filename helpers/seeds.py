"""How sure a mean over a few seeds is: Student's t. Works on numbers; knows nothing of what they measure."""

import math
import statistics
from collections.abc import Sequence

T_95 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571}  # for a two-sided 95 %, by the number of values


def over_seeds(values: Sequence[float]) -> tuple[float, float]:
    """Borders of the mean's 95 % interval; not finite for fewer than two values, or where one is not.

    Source: Student 1908. With three seeds it is 2.5 standard deviations to each side: few seeds prove little.
    """
    count = len(values)
    if count < 2 or not all(map(math.isfinite, values)):
        return -math.inf, math.inf
    half = T_95.get(count, T_95[6]) * statistics.stdev(values) / math.sqrt(count)
    mean = statistics.fmean(values)
    return mean - half, mean + half
