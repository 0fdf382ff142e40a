// linear_mse with few columns and one output, of rows too many to be regrouped: lanes run over the columns of a row.
//
// A group of rows, each in one to four registers, is passed over twice in the first-level cache: once for its products,
// once for their residuals' products with the rows. Nothing is copied, and what comes next is fetched meanwhile: one
// pass over x and target, at the pace of memory.

/// A row in P packs, of each of which R registers are used, zeros beyond its columns.
template <class T, int P, int R>
struct ShortRow {
  typename Vector<T>::Native r[P * R];
};

/// The columns of a row, `mask` those of its last pack. Where it may read `beyond` them, it does, to the end of its
/// registers: masked loads are slow.
template <class T, int P, int R>
GDCORE_INLINE ShortRow<T, P, R> short_row(const T* from, const Mask<T>& mask, bool beyond) {
  typedef typename Vector<T>::Native Native;
  typedef typename Vector<T>::Bits Bits;
  ShortRow<T, P, R> row;
  for (int i = 0; i < P * R; ++i) {
    const T* const part = from + i * Pack<T>::kPerRegister;
    const bool whole = i < (P - 1) * R;
    if (!whole && !beyond) {
      row.r[i] = masked_load(part, mask.r[i % R]);
      continue;
    }
    row.r[i] = *reinterpret_cast<const typename Vector<T>::Unaligned*>(part);
    if (!whole) row.r[i] = reinterpret_cast<Native>(reinterpret_cast<Bits>(row.r[i]) & mask.r[i % R]);
  }
  return row;
}

/// to += factor · row.
template <class T, int P, int R>
GDCORE_INLINE void add_row(ShortRow<T, P, R>& to, T factor, const ShortRow<T, P, R>& row) {
  const Pack<T> all = broadcast(factor);
  for (int i = 0; i < P * R; ++i) to.r[i] = multiply_add(row.r[i], all.r[0], to.r[i]);
}

/// Up to kRowGroup rows, one after the other; the last is read with a mask, and so is nothing beyond it.
template <class T, int P, int R>
struct ShortRows {
  const T* data;
  Index stride;
  Index count;
  Mask<T> mask;
  ShortRow<T, P, R> last;

  /// Not the last. The registers of a row are less than twice as long as it is, so they end within the next one; but
  /// not those of AVX-512, whose masks are quick.
  GDCORE_INLINE_MEMBER ShortRow<T, P, R> operator[](Index row) const {
    return short_row<T, P, R>(data + row * stride, mask, kRegisterBytes < kLaneBytes);
  }
};

/// The rows of a group from `row` on: x's own memory, or a copy where columns are not neighbours or rows overlap.
template <class T, int P, int R>
GDCORE_INLINE void point_at(ShortRows<T, P, R>& rows, const Matrix<const T>& x, Index row, Index count, Index d,
                            T* buffer) {
  rows.data = x.data + row * x.row;
  rows.stride = x.row;
  rows.count = count;
  if (x.column != 1 || x.row < d) {
    for (Index i = 0; i < count; ++i) {
      for (Index j = 0; j < d; ++j) buffer[i * d + j] = rows.data[i * x.row + j * x.column];
    }
    rows.data = buffer;
    rows.stride = d;
  }
  rows.last = short_row<T, P, R>(rows.data + (count - 1) * rows.stride, rows.mask, false);
}

/// x · weight of four rows from `row` on: of `whole` ones, and of the last for all further.
template <class T, int P, int R>
GDCORE_INLINE Four<T> short_products(const ShortRows<T, P, R>& x, Index row, Index whole,
                                     const ShortRow<T, P, R>& weight) {
  ShortRow<T, 1, R> dot[4] = {};
  for (Index i = 0; i < 4; ++i) {
    const ShortRow<T, P, R> of_row = i < whole ? x[row + i] : x.last;
    for (int p = 0; p < P * R; ++p) dot[i].r[p % R] = multiply_add(of_row.r[p], weight.r[p], dot[i].r[p % R]);
  }
  return totals<T>(dot);
}

/// Σ residual · row, even and odd rows in a chain each.
template <class T, int P, int R>
GDCORE_INLINE ShortRow<T, P, R> add_short_rows(const ShortRows<T, P, R>& x, const T* residual) {
  ShortRow<T, P, R> even = {}, odd = {};
  Index row = 0;
  for (; row + 2 < x.count; row += 2) {
    add_row(even, residual[row], x[row]);
    add_row(odd, residual[row + 1], x[row + 1]);
  }
  if (row + 1 < x.count) add_row(even, residual[row], x[row]);
  add_row(x.count % 2 == 0 ? odd : even, residual[x.count - 1], x.last);
  for (int i = 0; i < P * R; ++i) even.r[i] = even.r[i] + odd.r[i];
  return even;
}

template <class T, int P, int R>
static void linear_mse_short(const LinearMse<T>& a, const T* theta, Index begin, Index end, double* sums) noexcept {
  constexpr int columns = P * R * Pack<T>::kPerRegister;
  const Index d = a.columns;
  // Rows with gaps between them, or columns, are not fetched.
  const Index ahead = a.x.row == d && a.x.column == 1 ? kPrefetchBytes / static_cast<Index>(sizeof(T)) : 0;
  const double bias = a.bias ? static_cast<double>(theta[d]) : 0.0;
  ShortRows<T, P, R> x;
  x.mask = first<T>(d - (P - 1) * kLanes<T>);
  const ShortRow<T, P, R> weight = short_row<T, P, R>(theta, x.mask, false);
  alignas(kLaneBytes) T residual[kRowGroup];
  alignas(kLaneBytes) T copied[kRowGroup * (kWideColumns - 1)];
  alignas(kLaneBytes) T buffer[columns];
  RowSums row_sums = {};
  double gradient[columns] = {};

  for (Index group = begin; group < end; group += kRowGroup) {
    point_at(x, a.x, group, end - group < kRowGroup ? end - group : kRowGroup, d, copied);
    for (Index row = 0; row < x.count; row += 4) {
      for (Index j = 0; ahead > 0 && j < 4 * d; j += kLanes<T>) __builtin_prefetch(x.data + row * d + j + ahead);
      const Index left = x.count - row;
      const Four<T> dot = left > 4 ? short_products(x, row, 4, weight) : short_products(x, row, left - 1, weight);
      __builtin_memcpy(residual + row, &dot, sizeof(dot));
    }
    for (Index row = 0; row < x.count; row += 4) {
      const T* const target = a.target.data + (group + row) * a.target.row;
      const Index count = x.count - row < 4 ? x.count - row : 4;
      const Four<T> r =
          four_residuals<T>(four(residual + row, 1, 4), bias, target, a.target.row, nullptr, 0, count, row_sums);
      __builtin_memcpy(residual + row, &r, sizeof(r));
    }
    const ShortRow<T, P, R> sum = add_short_rows(x, residual);
    __builtin_memcpy(buffer, sum.r, sizeof(sum.r));
    for (int j = 0; j < columns; ++j) gradient[j] += static_cast<double>(buffer[j]);
    for (Index row = 0; a.dx != nullptr && row < x.count; ++row) {
      const T factor = residual[row] * a.dx_factor;
      for (Index j = 0; j < d; ++j) a.dx[(group + row) * d + j] = factor * theta[j];
    }
  }
  sums[0] += total(row_sums.squares);
  for (Index j = 0; j < d; ++j) sums[1 + j] += gradient[j];
  if (a.bias) sums[1 + d] += total(row_sums.residuals);
}

template <class T>
static void linear_mse_short(const LinearMse<T>& a, const T* theta, Index begin, Index end, double* sums) noexcept {
  constexpr Index lanes = kLanes<T>;
  if constexpr (kRegisters > 1 && lanes == kWideColumns) {
    if (2 * a.columns <= lanes) return linear_mse_short<T, 1, kRegisters / 2>(a, theta, begin, end, sums);
  }
  if (a.columns <= lanes) return linear_mse_short<T, 1, kRegisters>(a, theta, begin, end, sums);
  if constexpr (lanes < kWideColumns) linear_mse_short<T, 2, kRegisters>(a, theta, begin, end, sums);
}
