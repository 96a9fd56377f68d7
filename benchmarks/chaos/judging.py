"""Whether answers are the same, and whether memory grows."""

import statistics
from collections.abc import Mapping

TOLERANCE = 1e-3  # of a probability: batches of other sizes round otherwise

Answer = Mapping[str, float]  # probability by label


def same(answer: Answer, expected: Answer) -> bool:
    """Whether both say the same: every probability, and the first label unless it is as good as another."""
    close = answer.keys() == expected.keys() and all(abs(answer[k] - expected[k]) <= TOLERANCE for k in expected)
    return close and max(expected.values()) - expected[max(answer, key=answer.__getitem__)] <= TOLERANCE


def growth(resident: list[int]) -> float:
    """Memory at the end against that after warm-up: the last tenth's median over that of the second tenth."""
    tenth = max(1, len(resident) // 10)
    return statistics.median(resident[-tenth:]) / statistics.median(resident[tenth : 2 * tenth] or resident) - 1
