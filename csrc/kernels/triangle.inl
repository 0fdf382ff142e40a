// triangle: R becomes the triangular factor of [R; B], B being a block of rows, by Householder reflections.
//
// A column's reflection takes x = (R_jj, B_1j, …) to (∓‖x‖, 0, …). With u = x / ‖x‖, 1 added to |u_0|, it takes a later
// column y to y − u (uᵀ y) / |u_0|. Nothing overflows or vanishes that need not: a column whose squares would is taken
// 2^±600 times. Lanes run over rows; what B held is lost.
//
// Four columns are reflected one after the other, then all that follow by the four reflections at once, two columns at
// a time: six loads for eight multiply-adds. Their product takes y to y + U M (Uᵀ y), as Schreiber and Van Loan did.
//
// Source: Golub and Van Loan, Matrix Computations, 5.1 and 5.2.

inline constexpr Index kReflections = 4;

/// Reflections, each along a column of B and one number of R.
struct Reflections {
  const double* along;             // kReflections columns
  double first[kReflections];      // in R
  double share[kReflections];      // −1 / |first|
  Four<double> mix[kReflections];  // M, column by column
};

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

GDCORE_INLINE double column_product(const double* a, const double* b) {
  Pack<double> products = {};
  for (Index i = 0; i < kTriangleRows; i += kLanes<double>) products = fma(load(a + i), load(b + i), products);
  return total(products);
}

/// Makes column u and its number in R those of its reflection, and tells its first number; 0 where the column is.
GDCORE_INLINE double reflection_of(double* u, double& head) {
  double scale = 1;
  double squares = scaled_squares(head, u, scale);
  if (!(squares > 0x1p-900 && squares < 0x1p900)) {
    scale = squares < 1 ? 0x1p600 : 0x1p-600;
    squares = scaled_squares(head, u, scale);
    if (squares == 0) return 0;
  }
  const double norm = square_root(squares);
  const double inverse = 1 / norm;
  const double cosine = head * scale * inverse;
  head = cosine < 0 ? norm / scale : -norm / scale;
  for (Index i = 0; i < kTriangleRows; i += kLanes<double>) {
    store(u + i, load(u + i) * broadcast(scale) * broadcast(inverse));
  }
  return cosine < 0 ? cosine - 1 : cosine + 1;
}

/// −1 / |first|, or nothing of a reflection that is none.
GDCORE_INLINE double share_of(double first) {
  if (first == 0) return 0;
  return first < 0 ? 1 / first : -1 / first;
}

/// Takes column y, whose number in R is given, through one reflection.
GDCORE_INLINE void reflect(const double* u, double first, double share, double* y, double& head) {
  const double along = share * fma(first, head, column_product(u, y));
  head = fma(along, first, head);
  for (Index i = 0; i < kTriangleRows; i += kLanes<double>) {
    store(y + i, fma(broadcast(along), load(u + i), load(y + i)));
  }
}

/// M: what y + U (M z) takes of z, the products of each reflection with y, for the four in their order.
static void mix(Reflections& all) noexcept {
  double m[kReflections][kReflections] = {};
  for (Index k = 0; k < kReflections; ++k) {
    m[k][k] = all.share[k];
    for (Index l = 0; l < k; ++l) {
      const double between =
          all.share[k] * column_product(all.along + k * kTriangleRows, all.along + l * kTriangleRows);
      for (Index c = 0; c <= l; ++c) m[k][c] = fma(between, m[l][c], m[k][c]);
    }
  }
  for (Index c = 0; c < kReflections; ++c) all.mix[c] = Four<double>{m[0][c], m[1][c], m[2][c], m[3][c]};
}

/// Takes `kColumns` columns of B, and of the four rows of R whose numbers the reflections hold, through them.
template <int kColumns>
GDCORE_INLINE void reflect_all(const Reflections& by, Index columns, double* y, double* r) {
  typedef typename Vector<double>::Native Native;
  typedef typename Vector<double>::Unaligned Unaligned;
  constexpr Index lanes = Pack<double>::kPerRegister;
  Pack<double> products[kColumns][kReflections];
  for (int part = 0; part < kRegisters; ++part) {
    Native sums[kColumns][kReflections] = {};
    for (Index i = part * lanes; i < kTriangleRows; i += kLanes<double>) {
      for (int c = 0; c < kColumns; ++c) {
        const Native b = *reinterpret_cast<const Unaligned*>(y + c * kTriangleRows + i);
        for (Index k = 0; k < kReflections; ++k) {
          const Native u = *reinterpret_cast<const Unaligned*>(by.along + k * kTriangleRows + i);
          sums[c][k] = multiply_add(u, b, sums[c][k]);
        }
      }
    }
    for (int c = 0; c < kColumns; ++c) {
      for (Index k = 0; k < kReflections; ++k) products[c][k].r[part] = sums[c][k];
    }
  }
  double along[kColumns][kReflections];
  for (int c = 0; c < kColumns; ++c) {
    Four<double> z = totals<double>(products[c]);
    for (Index k = 0; k < kReflections; ++k) z[k] = fma(by.first[k], r[k * columns + c], z[k]);
    const Four<double> a = (by.mix[0] * z[0] + by.mix[1] * z[1]) + (by.mix[2] * z[2] + by.mix[3] * z[3]);
    for (Index k = 0; k < kReflections; ++k) {
      along[c][k] = a[k];
      r[k * columns + c] = fma(a[k], by.first[k], r[k * columns + c]);
    }
  }
  for (Index i = 0; i < kTriangleRows; i += lanes) {
    for (int c = 0; c < kColumns; ++c) {
      Unaligned* const to = reinterpret_cast<Unaligned*>(y + c * kTriangleRows + i);
      Native b = *to;
      for (Index k = 0; k < kReflections; ++k) {
        const Native u = *reinterpret_cast<const Unaligned*>(by.along + k * kTriangleRows + i);
        b = multiply_add(along[c][k] - Native{}, u, b);
      }
      *to = b;
    }
  }
}

static void triangle(Index columns, double* block, double* r) noexcept {
  for (Index start = 0; start < columns; start += kReflections) {
    Reflections by;
    double* const u = block + start * kTriangleRows;
    const Index count = columns - start < kReflections ? columns - start : kReflections;
    by.along = u;
    for (Index k = 0; k < count; ++k) {
      double* const row = r + (start + k) * columns + start;
      by.first[k] = reflection_of(u + k * kTriangleRows, row[k]);
      by.share[k] = share_of(by.first[k]);
      for (Index c = k + 1; c < count; ++c) {
        reflect(u + k * kTriangleRows, by.first[k], by.share[k], u + c * kTriangleRows, row[c]);
      }
    }
    Index c = start + kReflections;
    if (c >= columns) break;
    mix(by);
    for (; c + 1 < columns; c += 2) {
      reflect_all<2>(by, columns, block + c * kTriangleRows, r + start * columns + c);
    }
    if (c < columns) reflect_all<1>(by, columns, block + c * kTriangleRows, r + start * columns + c);
  }
}
