"""Every lesson by name, in the order of the seeds."""

from __future__ import annotations

from .autograd import AUTOGRAD, ZERO_GRAD
from .deeper_gd import DEEPER_GD_MANUAL, DEEPER_GD_SGD
from .lab import LAB_MODULE, LAB_RAW
from .learning_rate import LEARNING_RATE
from .legendre import LEGENDRE
from .lesson import Lesson
from .linear_regression import LINEAR_REGRESSION
from .minibatch import MINIBATCH
from .multivariate import MULTIVARIATE_MATRIX, MULTIVARIATE_SEPARATE
from .multivariate_nn import MULTIVARIATE_NN
from .nn_linear import NN_LINEAR
from .sine import SINE_NUMPY, SINE_TORCH
from .sine_nn import SINE_NN
from .sine_rmsprop import SINE_RMSPROP
from .study_hours import STUDY_HOURS_ERRORS

LESSONS: dict[str, Lesson] = {
    lesson.name: lesson
    for lesson in (
        DEEPER_GD_MANUAL,
        DEEPER_GD_SGD,
        STUDY_HOURS_ERRORS,
        LEARNING_RATE,
        LINEAR_REGRESSION,
        ZERO_GRAD,
        AUTOGRAD,
        LAB_RAW,
        LAB_MODULE,
        SINE_NUMPY,
        SINE_TORCH,
        LEGENDRE,
        SINE_NN,
        SINE_RMSPROP,
        MULTIVARIATE_SEPARATE,
        MULTIVARIATE_MATRIX,
        NN_LINEAR,
        MULTIVARIATE_NN,
        MINIBATCH,
    )
}
