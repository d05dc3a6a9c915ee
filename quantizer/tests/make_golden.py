"""GPTQ as its paper writes it (Frantar et al., arXiv 2210.17323, algorithm 1), in NumPy and binary64:
the inverse of the Hessian, its Cholesky factor, one column after another. Writes golden/gptq.json.

    python quantizer/tests/make_golden.py

The C++ takes another way to the same integers (no inverse, lazy corrections from the left), so every
problem keeps its distance from ties: a seed whose weights come near one is passed over.
"""

import json
from pathlib import Path

import numpy as np

GROUP = 64
MARGIN = 2e-4  # distance from a tie, in steps, of every weight that is rounded
DAMPING = 0.01


def levels(bits):
    return -(1 << (bits - 1)), (1 << (bits - 1)) - 1


def best_step(weights, importance, bits):
    low, high = levels(bits)
    covering = np.abs(weights).max() / high
    if bits == 8 or covering == 0:
        return covering
    steps = covering * (1 - 0.5 * np.arange(41) / 40)
    grid = np.clip(np.rint(weights / steps[:, None]), low, high) * steps[:, None]
    return steps[np.argmin((importance * (grid - weights) ** 2).sum(axis=1))]


def choose_scales(row, importance, bits, grouped):
    """Scale and multipliers (one for all without groups)."""
    if not grouped:
        return np.float32(best_step(row, importance, bits)), [1]
    cuts = range(0, len(row), GROUP)
    steps = np.array([best_step(row[c : c + GROUP], importance[c : c + GROUP], bits) for c in cuts])
    scale = np.float32(steps.max() / 63)
    return scale, [int(m) for m in np.clip(np.rint(steps / scale), 1, 63)]


def gptq(weights, hessian, bits, grouped, order):
    """Integers, scales and multipliers, and the least distance from a tie."""
    low, high = levels(bits)
    outputs, inputs = weights.shape
    damped = hessian + DAMPING * np.diag(hessian).mean() * np.eye(inputs)
    importance = np.diag(damped)
    chosen = [choose_scales(row, importance, bits, grouped) for row in weights]
    steps = np.array(
        [
            [float(s) * (m[i // GROUP] if grouped else 1) for i in range(inputs)]
            for s, m in chosen
        ]
    )
    where = np.arange(inputs)
    if order == "descending":
        where = np.argsort(-importance, kind="stable")
    inverse = np.linalg.inv(damped[np.ix_(where, where)])
    upper = np.linalg.cholesky(inverse).T
    left = weights[:, where].copy()
    integers = np.zeros((outputs, inputs), int)
    margin = 1.0
    for k, i in enumerate(where):
        exact = left[:, k] / steps[:, i]
        integers[:, i] = np.clip(np.rint(exact), low, high)
        inside = exact[(exact > low - 0.5 - MARGIN) & (exact < high + 0.5 + MARGIN)]
        margin = min(margin, np.abs(np.abs(inside - np.floor(inside)) - 0.5).min(initial=1))
        error = (left[:, k] - integers[:, i] * steps[:, i]) / upper[k, k]
        left[:, k:] -= np.outer(error, upper[k, k:])
    return integers, [s for s, _ in chosen], [m for _, m in chosen], margin


def problem(seed, outputs, inputs, dead):
    """Weights in units of 2^-12, and correlated inputs with outliers, some of them always 0. Both are
    integers, so the Hessian is exact and every reader has the same problem."""
    random = np.random.default_rng(seed)
    weights = np.rint(random.normal(size=(outputs, inputs)) * 200).astype(int)
    mixed = random.normal(size=(inputs + 8, inputs)) @ random.normal(size=(inputs, inputs))
    x = np.rint(mixed).astype(int)
    x[:, random.permutation(inputs)[: inputs // 8]] *= 6
    x[:, random.permutation(inputs)[:dead]] = 0
    return weights, x


def main():
    cases = []
    for outputs, inputs, bits, grouped, order, dead in [
        (3, 20, 4, False, "natural", 0),
        (3, 24, 4, False, "descending", 2),
        (2, 72, 4, True, "natural", 3),
        (2, 80, 4, True, "descending", 0),
        (2, 40, 8, False, "natural", 0),
    ]:
        for seed in range(1000):
            weights, x = problem(seed, outputs, inputs, dead)
            hessian = (x.T @ x).astype(float)
            found = gptq(weights / 4096.0, hessian, bits, grouped, order)
            integers, scales, multipliers, margin = found
            if margin > MARGIN:
                break
        else:
            raise SystemExit(f"no seed keeps {outputs} x {inputs} away from ties")
        cases.append(
            {
                "bits": bits,
                "grouped": grouped,
                "order": order,
                "weights_x4096": weights.tolist(),
                "inputs": x.tolist(),
                "integers": integers.tolist(),
                "scales": [float(s) for s in scales],
                "multipliers": multipliers if grouped else [],
            }
        )
    out = Path(__file__).with_name("golden") / "gptq.json"
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(cases, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
