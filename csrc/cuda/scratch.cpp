#include "cuda/launches.h"
#include "cuda/plan.h"

namespace gdcore::cuda {

namespace {

Index larger(Index a, Index b) { return a > b ? a : b; }

Index weight_partials(Storage storage, Index size, bool weighted) {
  return weighted ? point_blocks(storage, size, 1) : 0;
}

}  // namespace

Index mse_scratch(Storage storage, Index size, bool weighted) {
  return 1 + larger(weight_partials(storage, size, weighted), point_blocks(storage, size, 1));
}

Index scratch(Storage storage, const Problem& p) {
  const bool weighted = p.mean && p.loss_weight.data != nullptr;
  const Index weights = weight_partials(storage, p.rows * p.outputs, weighted);
  const Index sums = p.model == Model::kIndexed ? p.places.weights : p.parameters;
  Index partials = 0;
  if (p.columns == 1 && p.outputs == 1 && p.dx == nullptr) {
    partials = (1 + sums) * point_blocks(storage, p.rows, 1 + sums);
  } else {
    const LinearPlan plan = linear_plan(storage, p.rows, p.columns, p.outputs);
    partials = (plan.output_blocks + sums) * plan.row_blocks;
  }
  return 1 + 2 * sums + larger(weights, partials);
}

}  // namespace gdcore::cuda
