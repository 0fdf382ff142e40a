// Few rows in place of many: the triangular factor of a narrow matrix, in float64.
#pragma once

#include <vector>

#include "kernels/kernels.h"

namespace gdcore {

/// Columns that stand side by side in a matrix.
struct Columns {
  Index count;
  bool is_double;
  Matrix<const float> floats;
  Matrix<const double> doubles;
};

/// Makes r, the factor of other rows or zeros, that of these rows beneath them: of A, the parts side by side, or √w A
/// where `weight` has a column. Row by row; nothing below the diagonal is read or written.
void triangle(const std::vector<Columns>& parts, const Columns& weight, Index rows, double* r);

/// Scales so many values, or makes all of them NaN where one is not finite.
void scale_finite(double* values, Index count, double scale);

}  // namespace gdcore
