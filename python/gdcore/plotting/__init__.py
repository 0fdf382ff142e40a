"""Pictures of gradient descent: arrays in, matplotlib Axes out.

Every function draws on the Axes it is given, or on a new figure's, and returns the Axes. matplotlib
is imported when a picture is first drawn. The colours are Okabe and Ito's, which the colour-blind
can tell apart too; lines differ in their dashes as well.
"""

from ._look import BLUE, GREEN, GREY, ORANGE, PURPLE, new_figure
from .descents import descent
from .fits import error_bars, fit_animation, fit_line, fitted_curve, predictions
from .losses import history, loss_curve
from .parabolas import cost_parabola
from .rates import curvature, sweep

__all__ = [
    "BLUE",
    "GREEN",
    "GREY",
    "ORANGE",
    "PURPLE",
    "cost_parabola",
    "curvature",
    "descent",
    "error_bars",
    "fit_animation",
    "fit_line",
    "fitted_curve",
    "history",
    "loss_curve",
    "new_figure",
    "predictions",
    "sweep",
]
