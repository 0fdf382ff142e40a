// One update as one call: what a Python function would do around the native run costs as much as the run.
#include "bindings/python.h"
#include "bindings/register.h"
#include "bindings/training.h"
#include "bindings/watch.h"

namespace gdcore {

namespace {

/// The functions of torch that a step calls.
struct TorchFunctions {
  py::object tensor_class;
  py::object empty_like;
  py::object threads;
  py::object autocast;  ///< whether any device's is on
  Key requires_grad{"requires_grad"};
  Key is_neg{"is_neg"};
  Key param_groups{"param_groups"};
  Key state{"state"};
  py::str stepped = "_opt_called";
};

const TorchFunctions& torch_functions() {
  // Never destroyed: at exit the interpreter is gone first.
  static const TorchFunctions* const found = [] {
    const auto module = py::module_::import("torch");
    return new TorchFunctions{module.attr("Tensor"), module.attr("empty_like"), module.attr("get_num_threads"),
                              module.attr("_C").attr("_is_any_autocast_enabled")};
  }();
  return *found;
}

/// Memory that means what it says, and needs no gradient. Whatever is not so is for Python to look at.
bool plain(py::handle object) {
  const TorchFunctions& t = torch_functions();
  return reinterpret_cast<PyObject*>(Py_TYPE(object.ptr())) == t.tensor_class.ptr() &&
         !is_true(get(object, t.requires_grad)) && !is_true(call(object, t.is_neg));
}

class Step {
 public:
  /// `check(x, y)` raises what is wrong with data that are not plain; `scalars` are patterns of a loss in float32 and
  /// float64.
  Step(const Training& training, const Watch& watch, py::object optimizer, py::function check,
       py::object float32_scalar, py::object float64_scalar)
      : training_(training),
        watch_(watch),
        optimizer_(std::move(optimizer)),
        check_(std::move(check)),
        scalars_{std::move(float32_scalar), std::move(float64_scalar)} {}

  /// The loss, or None, with nothing done, if something that the plan was made from has changed since.
  py::object call(py::object x, py::object y) const {
    if (!watch_.unchanged()) return py::none();
    const TorchFunctions& t = torch_functions();
    if (!plain(x) || !plain(y) || is_true(t.autocast())) check_(x, y);
    py::object loss = t.empty_like(scalars_[Tensor(x, "x").is_double() ? 1 : 0]);
    SignalPoll poll;
    const py::object groups = get(optimizer_, t.param_groups), state = get(optimizer_, t.state);
    const Request request = {loss, 1, 0, py::none(), t.threads().cast<int>()};
    training_.run({x, y, py::none(), py::none(), 0}, py::reinterpret_borrow<py::list>(groups),
                  py::reinterpret_borrow<py::dict>(state), request, poll.interrupt());
    poll.raise();
    // torch's learning-rate schedulers look at this to see that the optimizer has stepped.
    optimizer_.attr(t.stepped) = true;
    return loss;
  }

 private:
  const Training& training_;
  const Watch& watch_;
  py::object optimizer_;
  py::function check_;
  py::object scalars_[2];
};

}  // namespace

void register_step(py::module_& m) {
  py::class_<Step>(m, "Step")
      .def(py::init<const Training&, const Watch&, py::object, py::function, py::object, py::object>(),
           py::keep_alive<1, 2>(), py::keep_alive<1, 3>(), py::arg("training"), py::arg("watch"), py::arg("optimizer"),
           py::arg("check"), py::arg("float32_scalar"), py::arg("float64_scalar"))
      .def("__call__", &Step::call, py::arg("x"), py::arg("y"));
}

}  // namespace gdcore
