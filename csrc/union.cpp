#include "union.h"

#include <algorithm>
#include <cstdlib>
#include <initializer_list>
#include <memory>
#include <utility>
#include <vector>

namespace asycmst {
namespace {

// What waits in the exchange should stay in the caches: large problems are computed in portions of
// samples, or of heads of one sample.
constexpr std::int64_t kExchangeBytes = std::int64_t{8} << 20;
// Rows of results in the exchange are whole vectors on every instruction set.
constexpr std::int64_t kWidestVector = 16;

struct Portion {
    std::int64_t batch, batches, head, heads;
};

AxialProblem narrowed(AxialProblem p, const Portion& portion, std::int64_t stored_bytes) {
    const auto move = [&](Operand& operand, std::int64_t bytes) {
        if (operand.data != nullptr) {
            operand.data += (portion.batch * operand.batch + portion.head * operand.head) * bytes;
        }
    };
    for (Operand* operand : {&p.q, &p.k, &p.v, &p.out, &p.grad, &p.dq, &p.dk, &p.dv}) {
        move(*operand, stored_bytes);
    }
    move(p.mask, 1);
    p.batches = portion.batches;
    p.heads = portion.heads;
    return p;
}

// The same problem seen along the other axis.
AxialProblem across(AxialProblem p) {
    std::swap(p.groups, p.queries);
    p.keys = p.queries;
    Exchange& e = p.exchange;
    for (Operand* operand : {&p.q, &p.k, &p.v, &p.mask, &p.out, &p.grad, &p.dq, &p.dk, &p.dv,
                             &e.top, &e.sum, &e.delta, &e.out, &e.dq, &e.dk, &e.dv}) {
        std::swap(operand->group, operand->row);
    }
    return p;
}

// Lays out the exchange of a problem; without memory it only counts the bytes.
class ExchangeLayout {
  public:
    ExchangeLayout(char* memory, ElementBytes bytes) : memory_(memory), bytes_(bytes) {}

    void add(AxialProblem& p, bool backward) {
        Exchange& e = p.exchange;
        e.top = statistic(p);
        e.sum = statistic(p);
        if (!backward) {
            e.out = result(p, p.out);
            return;
        }
        e.delta = statistic(p);
        e.dq = result(p, p.dq);
        e.dk = result(p, p.dk);
        e.dv = result(p, p.dv);
    }

    std::int64_t used() const { return used_; }

  private:
    // Positions of one head in a row: what a task writes or reads lies together.
    Operand statistic(const AxialProblem& p) {
        const std::int64_t head = p.queries * p.groups;
        return {take(p.batches * p.heads * head), p.heads * head, 1, p.groups, head};
    }

    // Results wait in the caller's own rows where those have the precision of the sums.
    Operand result(const AxialProblem& p, const Operand& own) {
        if (bytes_.stored == bytes_.computed) {
            return own;
        }
        const std::int64_t width = (p.channels + kWidestVector - 1) / kWidestVector * kWidestVector;
        const std::int64_t group = p.heads * width, row = p.groups * group;
        return {take(p.batches * p.queries * row), p.queries * row, group, row, width};
    }

    char* take(std::int64_t count) {
        const std::int64_t begin = used_;
        used_ += (count * bytes_.computed + 63) / 64 * 64;
        return memory_ == nullptr ? nullptr : memory_ + begin;
    }

    char* memory_;
    ElementBytes bytes_;
    std::int64_t used_ = 0;
};

struct Free {
    void operator()(void* memory) const { std::free(memory); }
};

bool run(const AxialKernel& kernel, bool backward, const AxialProblem* problems, int count,
         ElementBytes bytes, double scale, int threads) {
    if (count == 0 || problems[0].batches == 0) {
        return true;
    }
    const AxialProblem& size = problems[0];
    const auto exchange_bytes = [&](std::int64_t batches, std::int64_t heads) {
        ExchangeLayout counter(nullptr, bytes);
        for (int i = 0; i < count; ++i) {
            AxialProblem p = narrowed(problems[i], {0, batches, 0, heads}, bytes.stored);
            counter.add(p, backward);
        }
        return counter.used();
    };
    const std::int64_t heads =
        std::clamp<std::int64_t>(kExchangeBytes / exchange_bytes(1, 1), 1, size.heads);
    const std::int64_t batches =
        heads < size.heads ? 1
                           : std::clamp<std::int64_t>(kExchangeBytes / exchange_bytes(1, heads), 1,
                                                      size.batches);
    void* memory = nullptr;
    if (posix_memalign(&memory, 64, static_cast<std::size_t>(exchange_bytes(batches, heads))) !=
        0) {
        return false;
    }
    const std::unique_ptr<void, Free> owner(memory);

    std::vector<AxialProblem> first(static_cast<std::size_t>(count));
    std::vector<AxialProblem> second(first.size());
    const auto visit = [&](std::vector<AxialProblem>& views, Part part) {
        for (AxialProblem& p : views) {
            p.part = part;
        }
        return run_axial(kernel, views.data(), count, scale, threads);
    };
    for (std::int64_t batch = 0; batch < size.batches; batch += batches) {
        for (std::int64_t head = 0; head < size.heads; head += heads) {
            const Portion portion{batch, std::min(batches, size.batches - batch), head,
                                  std::min(heads, size.heads - head)};
            ExchangeLayout layout(static_cast<char*>(memory), bytes);
            for (std::size_t i = 0; i < first.size(); ++i) {
                first[i] = narrowed(problems[i], portion, bytes.stored);
                layout.add(first[i], backward);
                second[i] = across(first[i]);
                if (second[i].keys < first[i].keys) {
                    std::swap(first[i], second[i]);
                }
            }
            if (!visit(first, Part::kFirst) || !visit(second, Part::kOthers) ||
                (backward && !visit(first, Part::kAgain))) {
                return false;
            }
        }
    }
    return true;
}

}  // namespace

bool run_union_forward(const AxialKernel& kernel, const AxialProblem* problems, int count,
                       ElementBytes bytes, double scale, int threads) {
    return run(kernel, false, problems, count, bytes, scale, threads);
}

bool run_union_backward(const AxialKernel& kernel, const AxialProblem* problems, int count,
                        ElementBytes bytes, double scale, int threads) {
    return run(kernel, true, problems, count, bytes, scale, threads);
}

}  // namespace asycmst
