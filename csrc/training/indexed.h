// A linear objective whose weights are taken from θ by an index: tied, shared or absent weights.
#pragma once

#include <vector>

#include "training/objective.h"

namespace gdcore {

/// weight[o, j] = θ[index[o · columns + j]], or 0 where the index is negative. The gradient of an element of θ is the
/// sum, in double and in the index's order, over the places where it stands.
/// `linear` has index.size() parameters, `parameters` is the length of θ.
template <class T>
std::unique_ptr<Objective<T>> indexed_objective(std::unique_ptr<Objective<T>> linear, std::vector<Index> index,
                                                Index parameters);

}  // namespace gdcore
