#include "training/triangle.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/instruction_sets.h"
#include "training/memory.h"

namespace gdcore {

namespace {

template <class T>
void copy_rows(const Matrix<const T>& from, Index column, Index begin, Index count, double* to) {
  const T* element = from.data + begin * from.row + column * from.column;
  for (Index i = 0; i < count; ++i, element += from.row) to[i] = static_cast<double>(*element);
}

void copy_rows(const Columns& from, Index column, Index begin, Index count, double* to) {
  if (from.is_double) return copy_rows(from.doubles, column, begin, count, to);
  copy_rows(from.floats, column, begin, count, to);
}

}  // namespace

void triangle(const std::vector<Columns>& parts, const Columns& weight, Index rows, double* r) {
  Index columns = 0;
  for (const Columns& part : parts) columns += part.count;
  const Array<double> block = allocate<double>(columns * kTriangleRows);
  double roots[kTriangleRows];

  for (Index begin = 0; begin < rows; begin += kTriangleRows) {
    const Index count = std::min(rows - begin, kTriangleRows);
    if (weight.count > 0) {
      copy_rows(weight, 0, begin, count, roots);
      for (Index i = 0; i < count; ++i) roots[i] = std::sqrt(roots[i]);
    }
    double* to = block.get();
    for (const Columns& part : parts) {
      for (Index column = 0; column < part.count; ++column, to += kTriangleRows) {
        copy_rows(part, column, begin, count, to);
        for (Index i = 0; i < count && weight.count > 0; ++i) to[i] *= roots[i];
        std::fill(to + count, to + kTriangleRows, 0.0);
      }
    }
    triangle_kernel()(columns, block.get(), r);
  }
}

void scale_finite(double* values, Index count, double scale) {
  const bool finite = std::all_of(values, values + count, [](double value) { return std::isfinite(value); });
  const double factor = finite ? scale : std::numeric_limits<double>::quiet_NaN();
  for (Index i = 0; i < count; ++i) values[i] *= factor;
}

}  // namespace gdcore
