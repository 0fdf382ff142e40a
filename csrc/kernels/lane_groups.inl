// Rows as groups of lanes: kLanes rows column by column, zeros beyond the last row.
//
// Where a row's columns are neighbours, four columns of a group are transposed in registers at a time.

/// Four columns of as many rows as half a group has, from `from` on, each to its place in the group.
GDCORE_INLINE void transpose_half(const float* from, Index row, float* to) {
  // Rows i and i + 4 in one register, as shuffles stay within half of it.
  const auto rows = [&](Index i) GDCORE_INLINE_LAMBDA {
    return __builtin_shufflevector(four(from + i * row, 1, 4), four(from + (i + 4) * row, 1, 4), 0, 1, 2, 3, 4, 5, 6,
                                   7);
  };
  const auto put = [&](Index column, auto v)
                       GDCORE_INLINE_LAMBDA { __builtin_memcpy(to + column * kLanes<float>, &v, sizeof(v)); };
  const auto r0 = rows(0), r1 = rows(1), r2 = rows(2), r3 = rows(3);
  const auto a = __builtin_shufflevector(r0, r1, 0, 8, 1, 9, 4, 12, 5, 13);
  const auto b = __builtin_shufflevector(r0, r1, 2, 10, 3, 11, 6, 14, 7, 15);
  const auto c = __builtin_shufflevector(r2, r3, 0, 8, 1, 9, 4, 12, 5, 13);
  const auto d = __builtin_shufflevector(r2, r3, 2, 10, 3, 11, 6, 14, 7, 15);
  put(0, __builtin_shufflevector(a, c, 0, 1, 8, 9, 4, 5, 12, 13));
  put(1, __builtin_shufflevector(a, c, 2, 3, 10, 11, 6, 7, 14, 15));
  put(2, __builtin_shufflevector(b, d, 0, 1, 8, 9, 4, 5, 12, 13));
  put(3, __builtin_shufflevector(b, d, 2, 3, 10, 11, 6, 7, 14, 15));
}
GDCORE_INLINE void transpose_half(const double* from, Index row, double* to) {
  const auto rows = [&](Index i) GDCORE_INLINE_LAMBDA { return four(from + i * row, 1, 4); };
  const auto put = [&](Index column, Four<double> v)
                       GDCORE_INLINE_LAMBDA { __builtin_memcpy(to + column * kLanes<double>, &v, sizeof(v)); };
  const auto r0 = rows(0), r1 = rows(1), r2 = rows(2), r3 = rows(3);
  const auto a = __builtin_shufflevector(r0, r1, 0, 4, 2, 6);
  const auto b = __builtin_shufflevector(r0, r1, 1, 5, 3, 7);
  const auto c = __builtin_shufflevector(r2, r3, 0, 4, 2, 6);
  const auto d = __builtin_shufflevector(r2, r3, 1, 5, 3, 7);
  put(0, __builtin_shufflevector(a, c, 0, 1, 4, 5));
  put(1, __builtin_shufflevector(b, d, 0, 1, 4, 5));
  put(2, __builtin_shufflevector(a, c, 2, 3, 6, 7));
  put(3, __builtin_shufflevector(b, d, 2, 3, 6, 7));
}

/// Copies `columns` columns of `count` rows from `row` on, each a run of lanes with zeros beyond `count`.
template <class T>
static void copy_group(const Matrix<const T>& m, Index row, Index columns, Index count, T* buffer) {
  constexpr Index lanes = kLanes<T>;
  const Index stride = m.row;
  const T* from = m.data + row * stride;
  if (m.column == 1 && columns >= 4 && count == lanes) {
    for (Index j = 0; j < columns; j += 4) {
      const Index first = j + 4 <= columns ? j : columns - 4;  // the last four, some of them again
      transpose_half(from + first, stride, buffer + first * lanes);
      transpose_half(from + lanes / 2 * stride + first, stride, buffer + first * lanes + lanes / 2);
    }
    return;
  }
  for (Index j = 0; j < columns; ++j) {
    T* run = buffer + j * lanes;
    for (Index i = 0; i < count; ++i) run[i] = from[i * stride + j * m.column];
    for (Index i = count; i < lanes; ++i) run[i] = 0;
  }
}

/// The same, or the rows themselves where they are so already.
template <class T>
GDCORE_INLINE const T* gather(const Matrix<const T>& m, Index row, Index columns, Index count, T* buffer) {
  if (columns == 1 && m.row == 1 && count == kLanes<T>) return m.data + row;
  copy_group(m, row, columns, count, buffer);
  return buffer;
}

/// The groups of a run of `count` rows from `row` on, one after the other.
template <class T>
GDCORE_INLINE const T* gather_run(const Matrix<const T>& m, Index row, Index columns, Index count, T* buffer) {
  constexpr Index lanes = kLanes<T>;
  if (columns == 1 && m.row == 1 && count % lanes == 0) return m.data + row;
  for (Index i = 0; i < count; i += lanes) {
    copy_group(m, row + i, columns, count - i < lanes ? count - i : lanes, buffer + i * columns);
  }
  return buffer;
}

/// Calls body(x, target, weight, count) for the groups of a run of points [row, end): one number each, one output. Only
/// the last group may lack points, and no other has a branch on it: nothing stands between the sums and registers.
template <class T, bool WEIGHTED, class Points, class Body>
GDCORE_INLINE void for_point_groups(const Points& a, Index row, Index end, const Body& body) {
  constexpr Index lanes = kLanes<T>;
  alignas(kLaneBytes) T x_buffer[kRun * lanes];
  alignas(kLaneBytes) T target_buffer[kRun * lanes];
  [[maybe_unused]] alignas(kLaneBytes) T weight_buffer[kRun * lanes];
  const Index rest = (end - row) % lanes;
  const Index whole = end - row - rest;
  const T* x = gather_run(a.x, row, 1, whole, x_buffer);
  const T* target = gather_run(a.target, row, 1, whole, target_buffer);
  const T* weight = WEIGHTED ? gather_run(a.loss_weight, row, 1, whole, weight_buffer) : nullptr;
  for (Index i = 0; i < whole; i += lanes) body(x + i, target + i, WEIGHTED ? weight + i : nullptr, lanes);
  if (rest > 0) {
    row += whole;
    x = gather(a.x, row, 1, rest, x_buffer);
    target = gather(a.target, row, 1, rest, target_buffer);
    if (WEIGHTED) weight = gather(a.loss_weight, row, 1, rest, weight_buffer);
    body(x, target, weight, rest);
  }
}
