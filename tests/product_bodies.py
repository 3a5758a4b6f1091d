"""Bodies made of products, sums and maps, of which intermediates share indices."""

import numpy as np
from hypothesis import strategies as st

MAPS = {"twice": lambda x: x * 2, "square": lambda x: x * x, "shift": lambda x: x + 1, "abs": abs}


@st.composite
def bodies(draw):
    """A function of `[n, t, i]` and `[t, i]`: products of whatever there is, sums, maps.

    `s` is as long as `t`, and `j` and `k` are as long as `i`.
    """
    made, steps = ["nti", "ti"], []
    for _ in range(draw(st.integers(3, 6))):
        one = draw(st.integers(0, 2 * len(made))) % len(made) if len(steps) % 2 else len(made) - 1
        kind = draw(st.sampled_from([*["product"] * 4, *MAPS]))
        if kind in MAPS:
            steps.append((kind, one, one, ""))
            made.append(made[one])
            continue
        other = draw(st.integers(0, len(made) - 1))
        first, second = made[one], made[other]
        old, new = draw(st.sampled_from(["tt", "ts", "ij", "jk"]))
        if new not in second:
            second = second.replace(old, new)
        letters = list(dict.fromkeys(first + second))
        kept = [letter for letter in letters if draw(st.integers(0, 3))][:3]
        steps.append(("product", one, other, f"{first},{second}->{''.join(kept)}"))
        made.append("".join(kept))

    def body(*operands):
        values = list(operands)
        for kind, one, other, equation in steps:
            if kind in MAPS:
                values.append(MAPS[kind](values[one]))
            else:
                values.append(np.einsum(equation, values[one], values[other]))
        return values[-1], *(values[-2:-1] if len(steps) % 2 else ())

    body.__name__ = str(steps)
    return body
