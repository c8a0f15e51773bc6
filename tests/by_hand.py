"""Training written anew on arrays: gradients by complex steps, optimizers from their papers, row by row."""

from dataclasses import dataclass, field

import numpy as np

from pipeline import parameters

STEP = 1e-30  # of a complex difference, which loses no digits however small it is


@dataclass
class ByHand:
    """Adam, AdaGrad or row-wise, clipping by norm, decoupled decay of matrices; each row of a table by itself."""

    optimizer: str
    rate: float
    clip_norm: float = 0.0
    weight_decay: float = 0.0
    state: dict = field(default_factory=dict)  # (name, row) -> its step count and sums

    def step(self, values, gradients, touched):
        """Change values by gradients in place; `touched` has the rows of the tables, other parameters move whole."""
        norm = np.sqrt(sum((gradient**2).sum() for gradient in gradients.values()))
        scale = self.clip_norm / norm if self.clip_norm and norm > self.clip_norm else 1.0
        for name, gradient in gradients.items():
            for row in touched.get(name, [...]):
                decay = self.weight_decay * values[name][row] if values[name].ndim > 1 else 0.0
                values[name][row] -= self.rate * (self.direction((name, row), gradient[row] * scale) + decay)
        return norm

    def direction(self, place, gradient):
        t, first, second = self.state.get(place, (0, 0.0, 0.0))
        if self.optimizer == "adagrad":
            second = second + gradient**2
            self.state[place] = (t, first, second)
            return gradient / (np.sqrt(second) + 1e-8)
        if self.optimizer == "row_wise" and place[1] is not ...:
            second = second + (gradient**2).mean()
            self.state[place] = (t, first, second)
            return gradient / (np.sqrt(second) + 1e-8)
        t, first, second = t + 1, 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
        self.state[place] = (t, first, second)
        return first / (1 - 0.9**t) / (np.sqrt(second / (1 - 0.999**t)) + 1e-8)


def complex_gradients(cost, network, touched):
    """Return cost(network) and its gradient by name: the network of arrays is computed once for every parameter."""
    arrays = {name: value.astype(complex) for name, value in parameters.flatten(network).items()}
    gradients = {name: np.zeros(value.shape) for name, value in arrays.items()}
    for name, value in arrays.items():
        for place in np.ndindex(value.shape):
            if name not in touched or place[0] in touched[name]:
                value[place] += 1j * STEP
                gradients[name][place] = cost(parameters.replace(network, arrays)).imag / STEP
                value[place] = value[place].real
    return float(cost(parameters.replace(network, arrays)).real), gradients
