// triangle: R becomes the triangular factor of [R; B], B being a block of rows, by Householder reflections.
//
// A column's reflection takes x = (R_jj, B_1j, …) to (∓‖x‖, 0, …). With u = x / ‖x‖, 1 added to |u_0|, it takes a later
// column y to y − u (uᵀ y) / |u_0|. Nothing overflows or vanishes that need not: a column whose squares would is taken
// 2^±600 times. Lanes run over rows, four passes over a column in the first-level cache; what B held is lost.
//
// Source: Golub and Van Loan, Matrix Computations, 5.1 and 5.2.

/// Σ (scale x)² over a column and its number in R.
GDCORE_INLINE double scaled_squares(double head, const double* column, double scale) {
  const Pack<double> factor = broadcast(scale);
  Pack<double> squares = {};
  for (Index i = 0; i < kTriangleRows; i += kLanes<double>) {
    const Pack<double> x = load(column + i) * factor;
    squares = fma(x, x, squares);
  }
  return fma(head * scale, head * scale, total(squares));
}

static void triangle(Index columns, double* block, double* r) noexcept {
  for (Index j = 0; j < columns; ++j) {
    double* const u = block + j * kTriangleRows;
    double& head = r[j * columns + j];
    double scale = 1;
    double squares = scaled_squares(head, u, scale);
    if (!(squares > 0x1p-900 && squares < 0x1p900)) {
      scale = squares < 1 ? 0x1p600 : 0x1p-600;
      squares = scaled_squares(head, u, scale);
      if (squares == 0) continue;
    }
    const double norm = square_root(squares);
    const double inverse = 1 / norm;
    const double cosine = head * scale * inverse;
    const double first = cosine < 0 ? cosine - 1 : cosine + 1;
    const double share = cosine < 0 ? 1 / first : -1 / first;  // −1 / |first|
    head = cosine < 0 ? norm / scale : -norm / scale;
    for (Index i = 0; i < kTriangleRows; i += kLanes<double>) {
      store(u + i, load(u + i) * broadcast(scale) * broadcast(inverse));
    }
    for (Index c = j + 1; c < columns; ++c) {
      double* const y = block + c * kTriangleRows;
      Pack<double> products = {};
      for (Index i = 0; i < kTriangleRows; i += kLanes<double>) products = fma(load(u + i), load(y + i), products);
      const double along = share * fma(first, r[j * columns + c], total(products));
      r[j * columns + c] = fma(along, first, r[j * columns + c]);
      for (Index i = 0; i < kTriangleRows; i += kLanes<double>) {
        store(y + i, fma(broadcast(along), load(u + i), load(y + i)));
      }
    }
  }
}
