"""The formulas of each lesson, in TeX."""

from __future__ import annotations

_LINE = [
    r"H(x) = W x + b",
    r"\mathrm{cost}(W, b) = \frac{1}{n} \sum_{i=1}^{n} \left[ y^{(i)} - H(x^{(i)}) \right]^2",
    r"W \;≔\; W - \alpha \frac{\partial}{\partial W} \mathrm{cost}(W, b), \quad "
    r"b \;≔\; b - \alpha \frac{\partial}{\partial b} \mathrm{cost}(W, b)",
]
_CUBIC = [
    r"\hat{y} = a + b x + c x^2 + d x^3",
    r"\mathrm{loss} = \sum_{i=1}^{n} \left( \hat{y}^{(i)} - y^{(i)} \right)^2",
    r"\frac{\partial\, \mathrm{loss}}{\partial c} = "
    r"\sum_{i=1}^{n} 2 \left( \hat{y}^{(i)} - y^{(i)} \right) \left( x^{(i)} \right)^2",
]
_PLANE = [
    r"H(x) = w_1 x_1 + w_2 x_2 + w_3 x_3 + b",
    r"\mathrm{cost} = \frac{1}{n} \sum_{i=1}^{n} \left( H(x^{(i)}) - y^{(i)} \right)^2",
]

FORMULAS = {
    "deeper_gd_manual": [
        r"\mathrm{cost}(W) = \frac{1}{m} \sum_{i=1}^{m} \left( W x^{(i)} - y^{(i)} \right)^2",
        r"\nabla W = \sum_{i=1}^{m} \left( W x^{(i)} - y^{(i)} \right) x^{(i)}",
        r"W \;≔\; W - \alpha \nabla W",
    ],
    "deeper_gd_sgd": [
        r"\nabla W = \frac{\partial\, \mathrm{cost}}{\partial W} = "
        r"\frac{2}{m} \sum_{i=1}^{m} \left( W x^{(i)} - y^{(i)} \right) x^{(i)}",
        r"W \;≔\; W - \alpha \nabla W",
    ],
    "study_hours_errors": [
        r"e^{(i)} = y^{(i)} - (13 x^{(i)} + 1)",
        r"\mathrm{cost} = \frac{1}{n} \sum_{i=1}^{n} \left( e^{(i)} \right)^2",
    ],
    "learning_rate": [
        r"W \;≔\; W - \alpha \nabla W",
        r"W - W^{*} \;\to\; (1 - \alpha \lambda) (W - W^{*}), \quad "
        r"\lambda = \frac{2}{m} \sum_{i=1}^{m} \left( x^{(i)} \right)^2",
    ],
    "linear_regression": _LINE,
    "zero_grad": [r"z = 2 w, \quad \frac{d z}{d w} = 2"],
    "autograd": [
        r"y = w^2, \quad z = 2 y + 5",
        r"\frac{d z}{d w} = \frac{d z}{d y} \frac{d y}{d w} = 2 \cdot 2 w",
    ],
    "lab_raw": _LINE[:2],
    "lab_module": _LINE[:2],
    "sine_numpy": _CUBIC,
    "sine_torch": _CUBIC[:2],
    "legendre": [
        r"P_3(u) = \frac{1}{2} \left( 5 u^3 - 3 u \right), \quad "
        r"P_3'(u) = \frac{3}{2} \left( 5 u^2 - 1 \right)",
        r"\hat{y} = a + b \, P_3(c + d x)",
    ],
    "sine_nn": [
        r"\hat{y} = b + w_1 x + w_2 x^2 + w_3 x^3",
        r"\mathrm{loss} = \sum_{i=1}^{n} \left( \hat{y}^{(i)} - y^{(i)} \right)^2",
    ],
    "sine_rmsprop": [
        r"v \;≔\; 0.99 \, v + 0.01 \, g^2",
        r"\theta \;≔\; \theta - \alpha \frac{g}{\sqrt{v} + 10^{-8}}",
    ],
    "multivariate_separate": _PLANE,
    "multivariate_matrix": [
        r"H(X) = X W + b",
        r"\nabla W = \frac{2}{n} X^{T} (X W + b - y), \quad "
        r"\nabla b = \frac{2}{n} \sum_{i=1}^{n} \left( X W + b - y \right)_i",
    ],
    "nn_linear": _LINE[:2],
    "multivariate_nn": _PLANE,
    "minibatch": [
        r"\mathrm{cost}_B = \frac{1}{|B|} \sum_{i \in B} \left( H(x^{(i)}) - y^{(i)} \right)^2",
        r"W \;≔\; W - \alpha \nabla_W \mathrm{cost}_B",
    ],
}
