// What the bindings ask for, and the launches that it takes: on a device's stream, or on an emulated one.
//
// Nothing here waits for the device, allocates, or reads what it computes. All memory is the caller's. Nor does it use
// the standard library, which nvcc's compilers would read again and again.
#pragma once

#include "cuda/indexed.h"
#include "cuda/rules.h"
#include "training/update_job.h"

namespace gdcore::cuda {

enum class Model : int { kLinear, kPolynomial, kLegendre, kIndexed };

/// A model's squared error over rows, one storage for all tensors but the gradients: those of half types are float32,
/// as a number that is rounded to float16 before the factor from above reaches it could vanish. Absent tensors are
/// null. Of one column, one output and no dx the tensors are seen as elements, else as matrices.
struct Problem {
  Model model;
  Index rows;
  Index columns;  ///< 1 but for linear and indexed
  Index outputs;  ///< 1 but for linear and indexed
  Index parameters;
  View x;
  View target;
  View loss_weight;
  const void* theta[kMaxTensors];
  Places places;  ///< of an indexed model, which has no loss without a loop
  bool bias;
  bool mean;
  void* dx;
};

struct MseProblem {
  Index size;
  View input;
  View target;
  View loss_weight;
  bool mean;
  void* loss;      ///< or null
  void* losses;    ///< or null
  void* gradient;  ///< or null
};

struct LegendreP3Problem {
  Index size;
  View x;
  View grad;
  void* out;
};

/// Doubles of scratch that a problem's launches need.
Index mse_scratch(Storage storage, Index size, bool weighted);
Index scratch(Storage storage, const Problem& problem);

/// Launches for tensors of one storage, one after the other in `Queue`.
template <class S, class Queue>
struct Launches {
  static void mse(Queue& queue, const MseProblem& problem, double* scratch);
  /// Loss and gradients, into what `loop` names.
  static void loss(Queue& queue, const Problem& problem, Loop loop, double* scratch);
  /// `loop.epochs` epochs: one launch for all of them where one block is enough, but for half types and indexed models;
  /// else two for each, three where the gradient's norm is looked at, or the model is indexed. A weighted mean takes
  /// two more, once.
  static void train(Queue& queue, const Problem& problem, Loop loop, double* scratch);
  /// In place, for what gradients are of; `values` are aligned and without gaps.
  static void scale(Queue& queue, const View& values, Index size, void* data, const void* factor);
  static void legendre_p3(Queue& queue, const LegendreP3Problem& problem);
  /// Tensors that share no memory; the rules are of one optimizer and one form, and skip together. Steps that the
  /// device counts are a launch more.
  static void update(Queue& queue, Kind kind, const UpdateJob* jobs, Index count);
};

}  // namespace gdcore::cuda
