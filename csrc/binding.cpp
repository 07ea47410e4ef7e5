// Module asycmst_ops._C: plain addresses, sizes and strides in, kernels out.
//
// The Python launcher owns the tensors and has checked them; nothing here knows of torch. A grid
// comes as its address and its strides over (B, T, N, H, d) in elements, a mask over (B, T, N),
// feature maps over (B, C, H, W), images over (n, H, W).
// Tuples are read through the C API: the generic casters would cost more than a small kernel.
#include <pybind11/pybind11.h>

#include <new>
#include <vector>

#include "isa.h"
#include "parallel.h"
#include "union.h"

namespace py = pybind11;

namespace asycmst {
namespace {

constexpr int kGridDims = 5;
constexpr int kMaskDims = 3;
constexpr int kMapsDims = 4;
constexpr int kImagesDims = 3;
// By DType.
constexpr ElementBytes kElementBytes[kDTypes] = {{4, 4}, {8, 8}, {2, 4}, {2, 4}};

// Reads one problem's flat tuple from left to right.
class TupleReader {
  public:
    explicit TupleReader(PyObject* tuple) : tuple_(tuple) {
        if (!PyTuple_Check(tuple)) {
            throw py::type_error("a problem must be a tuple");
        }
    }

    std::int64_t integer() { return as_integer(next()); }

    char* address() { return reinterpret_cast<char*>(as_integer(next())); }

    void integers(std::int64_t* to, int count) {
        PyObject* item = next();
        if (!PyTuple_Check(item) || PyTuple_GET_SIZE(item) != count) {
            throw py::type_error("sizes and strides must be tuples of the expected length");
        }
        for (int i = 0; i < count; ++i) {
            to[i] = as_integer(PyTuple_GET_ITEM(item, i));
        }
    }

    void finish() const {
        if (position_ != PyTuple_GET_SIZE(tuple_)) {
            throw py::type_error("a problem holds more values than expected");
        }
    }

  private:
    PyObject* next() {
        if (position_ >= PyTuple_GET_SIZE(tuple_)) {
            throw py::type_error("a problem holds fewer values than expected");
        }
        return PyTuple_GET_ITEM(tuple_, position_++);
    }

    static std::int64_t as_integer(PyObject* item) {
        const long long value = PyLong_AsLongLong(item);
        if (value == -1 && PyErr_Occurred() != nullptr) {
            throw py::error_already_set();
        }
        return value;
    }

    PyObject* tuple_;
    Py_ssize_t position_ = 0;
};

Operand read_operand(TupleReader& reader, std::int64_t dim, int dims) {
    std::int64_t strides[kGridDims] = {};
    Operand operand{};
    operand.data = reader.address();
    reader.integers(strides, dims);
    operand.batch = strides[0];
    operand.row = strides[dim];
    operand.group = strides[3 - dim];
    operand.head = dims == kGridDims ? strides[3] : 0;
    return operand;
}

// (dim, sizes of q, keys along dim, mask address or 0, mask strides, then address and strides of
// each grid: out q k v, or dq dk dv grad q k v)
AxialProblem read_axial(PyObject* tuple, bool backward) {
    TupleReader reader(tuple);
    AxialProblem problem{};
    const std::int64_t dim = reader.integer();
    if (dim != 1 && dim != 2) {
        throw py::value_error("dim must be 1 or 2");
    }
    std::int64_t sizes[kGridDims];
    reader.integers(sizes, kGridDims);
    problem.batches = sizes[0];
    problem.queries = sizes[dim];
    problem.groups = sizes[3 - dim];
    problem.heads = sizes[3];
    problem.channels = sizes[4];
    problem.keys = reader.integer();
    problem.mask = read_operand(reader, dim, kMaskDims);
    if (backward) {
        for (Operand* operand : {&problem.dq, &problem.dk, &problem.dv, &problem.grad}) {
            *operand = read_operand(reader, dim, kGridDims);
        }
    } else {
        problem.out = read_operand(reader, dim, kGridDims);
    }
    for (Operand* operand : {&problem.q, &problem.k, &problem.v}) {
        *operand = read_operand(reader, dim, kGridDims);
    }
    reader.finish();
    return problem;
}

std::vector<const KernelSet*> find_kernel_sets() {
    const KernelSet* sets[kMaxKernelSets];
    const int count = available_kernel_sets(sets);
    return {sets, sets + count};
}

// Leaked on purpose: threads may still run kernels while the process ends.
const std::vector<const KernelSet*>& kernel_sets() {
    static const auto* sets = new std::vector<const KernelSet*>(find_kernel_sets());
    return *sets;
}

const KernelSet& kernel_set(int isa) {
    return *kernel_sets().at(static_cast<std::size_t>(isa));
}

int check_dtype(int dtype) {
    if (dtype < 0 || dtype >= kDTypes) {
        throw py::value_error("unknown dtype number");
    }
    return dtype;
}

std::vector<AxialProblem> read_problems(const py::list& problems, bool backward) {
    std::vector<AxialProblem> read;
    read.reserve(problems.size());
    for (py::size_t i = 0; i < problems.size(); ++i) {
        read.push_back(read_axial(PyList_GET_ITEM(problems.ptr(), static_cast<Py_ssize_t>(i)),
                                  backward));
    }
    return read;
}

const AxialKernel& axial_kernel(bool backward, int dtype, int isa) {
    const KernelSet& set = kernel_set(isa);
    return (backward ? set.axial_backward : set.axial_forward)[check_dtype(dtype)];
}

// Runs kernels without the interpreter's lock; false from them means that memory was missing.
template <class Run>
void complete(const Run& run) {
    bool done;
    {
        py::gil_scoped_release release;
        done = run();
    }
    if (!done) {
        throw std::bad_alloc();
    }
}

void axial(bool backward, int dtype, const py::list& problems, double scale, int threads,
           int isa) {
    const std::vector<AxialProblem> read = read_problems(problems, backward);
    const AxialKernel& kernel = axial_kernel(backward, dtype, isa);
    complete([&] {
        return run_axial(kernel, read.data(), static_cast<int>(read.size()), scale, threads);
    });
}

void axial_forward(int dtype, const py::list& problems, double scale, int threads, int isa) {
    axial(false, dtype, problems, scale, threads, isa);
}

void axial_backward(int dtype, const py::list& problems, double scale, int threads, int isa) {
    axial(true, dtype, problems, scale, threads, isa);
}

// As for one axis; either serves as `dim`.
void union_of_axes(bool backward, int dtype, const py::list& problems, double scale, int threads,
                   int isa) {
    const std::vector<AxialProblem> read = read_problems(problems, backward);
    for (const AxialProblem& p : read) {
        const AxialProblem& size = read.front();
        if (p.keys != p.queries || p.batches != size.batches || p.groups != size.groups ||
            p.queries != size.queries || p.heads != size.heads || p.channels != size.channels) {
            throw py::value_error("the problems of a union must have the same sizes");
        }
    }
    const AxialKernel& kernel = axial_kernel(backward, dtype, isa);
    complete([&] {
        return (backward ? run_union_backward : run_union_forward)(
            kernel, read.data(), static_cast<int>(read.size()), kElementBytes[dtype], scale,
            threads);
    });
}

void union_forward(int dtype, const py::list& problems, double scale, int threads, int isa) {
    union_of_axes(false, dtype, problems, scale, threads, isa);
}

void union_backward(int dtype, const py::list& problems, double scale, int threads, int isa) {
    union_of_axes(true, dtype, problems, scale, threads, isa);
}

void fss_ranking(int dtype, std::uintptr_t loss, std::uintptr_t grad, std::uintptr_t scores,
                 std::int64_t batches, std::int64_t frames, std::int64_t batch_stride,
                 std::int64_t frame_stride, std::uintptr_t lengths, double floor, int threads,
                 int isa) {
    const RankingKernel& kernel = kernel_set(isa).ranking[check_dtype(dtype)];
    const RankingProblem problem{reinterpret_cast<const char*>(scores),
                                 batch_stride,
                                 frame_stride,
                                 reinterpret_cast<const std::int64_t*>(lengths),
                                 reinterpret_cast<char*>(loss),
                                 reinterpret_cast<char*>(grad),
                                 batches,
                                 frames,
                                 floor};
    complete([&] { return run_ranking(kernel, problem, threads); });
}

Maps read_maps(TupleReader& reader) {
    std::int64_t strides[kMapsDims];
    Maps maps{};
    maps.data = reader.address();
    reader.integers(strides, kMapsDims);
    maps.batch = strides[0];
    maps.channel = strides[1];
    maps.row = strides[2];
    maps.pixel = strides[3];
    return maps;
}

// (sizes, patch, channels under the channel gate alone, whether channels come last, then address
// and strides over (B, C, H, W) of out x, or dx grad x)
void gates(bool backward, int dtype, const py::tuple& maps, int threads, int isa) {
    const GatesKernel& kernel = kernel_set(isa).gates[check_dtype(dtype)];
    TupleReader reader(maps.ptr());
    GatesProblem problem{};
    std::int64_t sizes[kMapsDims];
    reader.integers(sizes, kMapsDims);
    problem.batches = sizes[0];
    problem.channels = sizes[1];
    problem.height = sizes[2];
    problem.width = sizes[3];
    problem.patch = reader.integer();
    problem.channel_only = reader.integer();
    problem.channels_last = reader.integer() != 0;
    problem.out = read_maps(reader);
    if (backward) {
        problem.grad = read_maps(reader);
    }
    problem.x = read_maps(reader);
    reader.finish();
    complete([&] { return run_gates(kernel, problem, backward, threads); });
}

void gates_forward(int dtype, const py::tuple& maps, int threads, int isa) {
    gates(false, dtype, maps, threads, isa);
}

void gates_backward(int dtype, const py::tuple& maps, int threads, int isa) {
    gates(true, dtype, maps, threads, isa);
}

Images read_images(TupleReader& reader) {
    std::int64_t strides[kImagesDims];
    Images images{};
    images.data = reader.address();
    reader.integers(strides, kImagesDims);
    images.image = strides[0];
    images.row = strides[1];
    return images;
}

// (sizes, address of the losses or of their gradients, then address and strides over (n, H, W) of
// target saliency, or of the gradient target saliency)
void saliency_losses(bool backward, int dtype, const py::tuple& images, double floor, int threads,
                     int isa) {
    const SaliencyKernel& kernel = kernel_set(isa).saliency_losses[check_dtype(dtype)];
    TupleReader reader(images.ptr());
    SaliencyProblem problem{};
    std::int64_t sizes[kImagesDims];
    reader.integers(sizes, kImagesDims);
    problem.images = sizes[0];
    problem.height = sizes[1];
    problem.width = sizes[2];
    problem.floor = floor;
    problem.losses = reader.address();
    if (backward) {
        problem.slope = read_images(reader);
    }
    problem.target = read_images(reader);
    problem.saliency = read_images(reader);
    reader.finish();
    complete([&] { return run_saliency_losses(kernel, problem, backward, threads); });
}

void saliency_losses_forward(int dtype, const py::tuple& images, double floor, int threads,
                             int isa) {
    saliency_losses(false, dtype, images, floor, threads, isa);
}

void saliency_losses_backward(int dtype, const py::tuple& images, double floor, int threads,
                              int isa) {
    saliency_losses(true, dtype, images, floor, threads, isa);
}

py::tuple isas() {
    const auto& sets = kernel_sets();
    py::tuple names(sets.size());
    for (std::size_t i = 0; i < sets.size(); ++i) {
        names[i] = py::str(sets[i]->name);
    }
    return names;
}

}  // namespace
}  // namespace asycmst

PYBIND11_MODULE(_C, module) {
    using namespace asycmst;
    kernel_sets();
    watch_for_fork();
    module.doc() = "CPU kernels of asycmst_ops; `isa` counts along isas(), 0 is the fastest.";
    module.def("axial_forward", &axial_forward, py::arg("dtype"), py::arg("problems"),
               py::arg("scale"), py::arg("threads"), py::arg("isa") = 0);
    module.def("axial_backward", &axial_backward, py::arg("dtype"), py::arg("problems"),
               py::arg("scale"), py::arg("threads"), py::arg("isa") = 0);
    module.def("union_forward", &union_forward, py::arg("dtype"), py::arg("problems"),
               py::arg("scale"), py::arg("threads"), py::arg("isa") = 0);
    module.def("union_backward", &union_backward, py::arg("dtype"), py::arg("problems"),
               py::arg("scale"), py::arg("threads"), py::arg("isa") = 0);
    module.def("fss_ranking", &fss_ranking, py::arg("dtype"), py::arg("loss"), py::arg("grad"),
               py::arg("scores"), py::arg("batches"), py::arg("frames"),
               py::arg("batch_stride"), py::arg("frame_stride"), py::arg("lengths"),
               py::arg("floor"), py::arg("threads"), py::arg("isa") = 0);
    module.def("gates_forward", &gates_forward, py::arg("dtype"), py::arg("maps"),
               py::arg("threads"), py::arg("isa") = 0);
    module.def("gates_backward", &gates_backward, py::arg("dtype"), py::arg("maps"),
               py::arg("threads"), py::arg("isa") = 0);
    module.def("saliency_losses_forward", &saliency_losses_forward, py::arg("dtype"),
               py::arg("images"), py::arg("floor"), py::arg("threads"), py::arg("isa") = 0);
    module.def("saliency_losses_backward", &saliency_losses_backward, py::arg("dtype"),
               py::arg("images"), py::arg("floor"), py::arg("threads"), py::arg("isa") = 0);
    module.def("isas", &isas, "Names of the instruction sets that run here, the fastest first.");
    module.attr("compiler") = __VERSION__;
    module.attr("openmp") = has_openmp();
}
