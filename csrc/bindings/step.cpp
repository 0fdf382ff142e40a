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
  Step(py::object training, py::object watch, py::object optimizer, py::function check, py::object float32_scalar,
       py::object float64_scalar)
      : owners_{std::move(training), std::move(watch)},
        training_(owners_[0].cast<const Training&>()),
        watch_(owners_[1].cast<const Watch&>()),
        optimizer_(std::move(optimizer)),
        check_(std::move(check)),
        scalars_{std::move(float32_scalar), std::move(float64_scalar)} {}

  py::object operator()(py::handle x, py::handle y) const {
    if (!watch_.unchanged()) return py::none();
    const TorchFunctions& t = torch_functions();
    if (!plain(x) || !plain(y) || is_true(call(t.autocast))) check_(x, y);
    py::object loss = call(t.empty_like, scalars_[Tensor(x, "x").is_double() ? 1 : 0]);
    SignalPoll poll;
    const py::object groups = get(optimizer_, t.param_groups), state = get(optimizer_, t.state);
    const Request request = {loss, 1, 0, py::none(), call(t.threads).cast<int>()};
    training_.run({x, y, py::none(), py::none(), 0}, py::reinterpret_borrow<py::list>(groups),
                  py::reinterpret_borrow<py::dict>(state), request, poll.interrupt());
    poll.raise();
    // torch's learning-rate schedulers look at this to see that the optimizer has stepped.
    optimizer_.attr(t.stepped) = true;
    return loss;
  }

 private:
  py::object owners_[2];
  const Training& training_;
  const Watch& watch_;
  py::object optimizer_;
  py::function check_;
  py::object scalars_[2];
};

/// What Python calls, as Python calls its own functions: pybind11's way there takes a tenth of a step.
PyObject* call_step(PyObject* step, PyObject* const* arguments, Py_ssize_t count) {
  if (count != 2) {
    PyErr_Format(PyExc_TypeError, "step: expected x and y, got %zd arguments", count);
    return nullptr;
  }
  try {
    const auto& made = *static_cast<const Step*>(PyCapsule_GetPointer(step, nullptr));
    return made(arguments[0], arguments[1]).release().ptr();
  } catch (py::error_already_set& error) {
    error.restore();
  } catch (...) {
    py::detail::try_translate_exceptions();
  }
  return nullptr;
}

/// Returns a function of x and y that makes a step and returns the loss, or None, with nothing done, if something that
/// the plan was made from has changed since. `check(x, y)` raises what is wrong with data that are not plain; the
/// scalars are patterns of a loss.
py::object make_step(py::object training, py::object watch, py::object optimizer, py::function check,
                     py::object float32_scalar, py::object float64_scalar) {
  static PyMethodDef definition = {"step", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(call_step)),
                                   METH_FASTCALL, nullptr};
  auto step = std::make_unique<Step>(std::move(training), std::move(watch), std::move(optimizer), std::move(check),
                                     std::move(float32_scalar), std::move(float64_scalar));
  const py::capsule owner(step.get(), [](void* made) { delete static_cast<Step*>(made); });
  static_cast<void>(step.release());
  PyObject* const function = PyCFunction_New(&definition, owner.ptr());
  if (function == nullptr) throw py::error_already_set();
  return py::reinterpret_steal<py::object>(function);
}

}  // namespace

void register_step(py::module_& m) {
  m.def("step", &make_step, py::arg("training"), py::arg("watch"), py::arg("optimizer"), py::arg("check"),
        py::arg("float32_scalar"), py::arg("float64_scalar"));
}

}  // namespace gdcore
