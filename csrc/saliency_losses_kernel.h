// Reconstruction, boundary and affinity of one saliency map M against its target I, and their
// gradient by M, in two sweeps over the rows each.
//
// The first sweep of the forward sums |I (M - 1)|, the Sobel edges of the gap I - M and, of both
// maps, the changes g = |down| + |right|; the second, now that their means m are known, the
// squares of r = g_I a - g_M b with a = 1 / (m_I + floor) and b = 1 / (m_M + floor). Its first
// sweep gives the backward the means and c = mean(r g_M) b; its second writes.
//
// A row is kept in the compute type with one pixel more on either side, equal to its neighbour,
// and beyond the first and the last row these stand in for the next: so a change across the border
// is 0, and Sobel's kernels see the image go on as it ends.
#pragma once

#include "part.h"
#include "rows.h"
#include "saliency_losses.h"

namespace asycmst {
namespace {

// Vectors added in the narrow type before they join the total: bounds the rounding of wide rows.
constexpr std::int64_t kVectorsPerSum = 32;

template <class C>
ASYCMST_INLINE typename Vec<C>::type magnitude(typename Vec<C>::type v) {
    using Bits = typename Vec<C>::bits;
    return bit_cast<typename Vec<C>::type>(bit_cast<Bits>(v) & (~Bits{} >> 1));
}

// 1, 0 or -1.
template <class C>
ASYCMST_INLINE typename Vec<C>::type sign(typename Vec<C>::type v) {
    using V = typename Vec<C>::type;
    const V none = {}, one = splat(C(1));
    return v > none ? one : v < none ? -one : none;
}

// Adds to each total what body(x, terms) finds in the lanes of a row from x on, up to its width.
template <class C, int Count, class Body>
ASYCMST_INLINE void add_row(double (&totals)[Count], std::int64_t width, const Body& body) {
    using V = typename Vec<C>::type;
    constexpr std::int64_t lanes = Vec<C>::lanes;
    V lane = {};
    for (int l = 0; l < lanes; ++l) {
        lane[l] = static_cast<C>(l);
    }
    for (std::int64_t begin = 0; begin < width; begin += kVectorsPerSum * lanes) {
        const std::int64_t left = width - begin;
        const std::int64_t end = left < kVectorsPerSum * lanes ? width
                                                               : begin + kVectorsPerSum * lanes;
        V sums[Count] = {};
        for (std::int64_t x = begin; x < end; x += lanes) {
            const auto inside = lane < static_cast<C>(width - x);
            V terms[Count];
            body(x, terms);
            ASYCMST_UNROLL
            for (int i = 0; i < Count; ++i) {
                sums[i] += inside ? terms[i] : V{};
            }
        }
        for (int i = 0; i < Count; ++i) {
            totals[i] += static_cast<double>(lane_sum<C>(sums[i]));
        }
    }
}

// Sobel's two kernels on three rows.
template <class C>
struct Edges {
    using V = typename Vec<C>::type;

    ASYCMST_INLINE Edges(const C* above, const C* here, const C* below, std::int64_t x) {
        const V upper_left = load(above + x - 1), upper_right = load(above + x + 1);
        const V lower_left = load(below + x - 1), lower_right = load(below + x + 1);
        across = (upper_right - upper_left) + C(2) * (load(here + x + 1) - load(here + x - 1)) +
                 (lower_right - lower_left);
        down = (lower_left - upper_left) + C(2) * (load(below + x) - load(above + x)) +
               (lower_right - upper_right);
    }

    V across, down;
};

template <class IO>
class SaliencyTask {
  public:
    using C = Compute<IO>;
    using V = typename Vec<C>::type;
    static constexpr std::int64_t lanes = Vec<C>::lanes;

    SaliencyTask(const SaliencyProblem& problem, std::int64_t image, void* memory)
        : p_(problem), image_(image), has_memory_(memory != nullptr), arena_(memory) {
        for (int i = 0; i < 3; ++i) {
            rows_[i] = {take_line(), take_line(), take_line()};
            signs_[i] = {take_line(), take_line()};
        }
        pull_above_ = take_line();
        pull_ = take_line();
        pull_right_ = take_line();
    }

    std::size_t scratch_bytes() const { return arena_.used(); }

    void forward() {
        enum { kMissed, kAcross, kDown, kTarget, kSaliency, kSums };
        double totals[kSums] = {};
        each_row([&](std::int64_t y) ASYCMST_INLINED {
            const Row above = row(y - 1), here = row(y), below = row(y + 1);
            add_row<C>(totals, p_.width, [&](std::int64_t x, V* terms) ASYCMST_INLINED {
                const Edges<C> edges(above.gap, here.gap, below.gap, x);
                terms[kMissed] = magnitude<C>(missed(here, x));
                terms[kAcross] = magnitude<C>(edges.across);
                terms[kDown] = magnitude<C>(edges.down);
                terms[kTarget] = changes(here.target, below.target, x);
                terms[kSaliency] = changes(here.saliency, below.saliency, x);
            });
        });
        const V a = splat(static_cast<C>(inverse(totals[kTarget])));
        const V b = splat(static_cast<C>(inverse(totals[kSaliency])));
        double residuals[1] = {};
        each_row([&](std::int64_t y) ASYCMST_INLINED {
            const Row here = row(y), below = row(y + 1);
            add_row<C>(residuals, p_.width, [&](std::int64_t x, V* terms) ASYCMST_INLINED {
                const V r = changes(here.target, below.target, x) * a -
                            changes(here.saliency, below.saliency, x) * b;
                terms[0] = r * r;
            });
        });
        C* losses = reinterpret_cast<C*>(p_.losses) + 3 * image_;
        losses[0] = static_cast<C>(totals[kMissed] / pixels());
        losses[1] = static_cast<C>((totals[kAcross] + totals[kDown]) / pixels());
        losses[2] = static_cast<C>(residuals[0] / pixels());
    }

    void backward() {
        enum { kTarget, kSaliency, kProduct, kSquare, kSums };
        double totals[kSums] = {};
        each_row([&](std::int64_t y) ASYCMST_INLINED {
            const Row here = row(y), below = row(y + 1);
            add_row<C>(totals, p_.width, [&](std::int64_t x, V* terms) ASYCMST_INLINED {
                const V target = changes(here.target, below.target, x);
                const V saliency = changes(here.saliency, below.saliency, x);
                terms[kTarget] = target;
                terms[kSaliency] = saliency;
                terms[kProduct] = target * saliency;
                terms[kSquare] = saliency * saliency;
            });
        });
        const double a = inverse(totals[kTarget]), b = inverse(totals[kSaliency]);
        const double c = (totals[kProduct] * a - totals[kSquare] * b) * b / pixels();
        const C* grads = reinterpret_cast<const C*>(p_.losses) + 3 * image_;
        a_ = static_cast<C>(a);
        b_ = static_cast<C>(b);
        c_ = static_cast<C>(c);
        reconstruction_ = static_cast<C>(static_cast<double>(grads[0]) / pixels());
        boundary_ = static_cast<C>(static_cast<double>(grads[1]) / pixels());
        affinity_ = static_cast<C>(static_cast<double>(grads[2]) * 2 * b / pixels());
        for (std::int64_t i = -1; i < p_.width; ++i) {
            pull_[i] = C(0);  // nothing lies above the first row
        }
        pull_right_[-1] = C(0);
        read(0);
        read(1);
        find_signs(0);
        for (std::int64_t y = 0; y < p_.height; ++y) {
            read(y + 2);
            find_signs(y + 1);
            C* spare = pull_above_;
            pull_above_ = pull_;
            pull_ = spare;
            find_pulls(y);
            write(y);
        }
    }

  private:
    struct Row {
        C *target, *saliency, *gap;
    };
    struct Signs {
        C *across, *down;
    };

    C* take_line() {
        C* memory = arena_.template take<C>(round_to_lanes<C>(p_.width) + 2 * lanes);
        return has_memory_ ? memory + lanes : nullptr;
    }

    std::int64_t inside(std::int64_t y) const {
        return y < 0 ? 0 : y < p_.height ? y : p_.height - 1;
    }
    Row row(std::int64_t y) const { return rows_[inside(y) % 3]; }
    Signs signs(std::int64_t y) const { return signs_[inside(y) % 3]; }

    double pixels() const {
        return static_cast<double>(p_.height) * static_cast<double>(p_.width);
    }

    // Of the mean plus the floor, finite in the compute type.
    double inverse(double total) const {
        const double least = sizeof(C) == 4 ? 0x1p-126 : 0x1p-1022;
        return 1 / (total / pixels() + (p_.floor > least ? p_.floor : least));
    }

    const IO* line(const Images& images, std::int64_t y) const {
        return reinterpret_cast<const IO*>(images.data) + image_ * images.image + y * images.row;
    }

    // Row y of both maps; those beyond the last are the last itself.
    void read(std::int64_t y) {
        if (y >= p_.height) {
            return;
        }
        const std::int64_t width = p_.width;
        const IO* target = line(p_.target, y);
        const IO* saliency = line(p_.saliency, y);
        const Row to = rows_[y % 3];
        for (std::int64_t x = 0; x < width; x += lanes) {
            const bool whole = x + lanes <= width;
            const V i = whole ? load(target + x) : load_first(target + x, width - x);
            const V m = whole ? load(saliency + x) : load_first(saliency + x, width - x);
            store(to.target + x, i);
            store(to.saliency + x, m);
            store(to.gap + x, i - m);
        }
        to.target[width] = to.target[width - 1];
        to.saliency[width] = to.saliency[width - 1];
        to.gap[width] = to.gap[width - 1];
        to.gap[-1] = to.gap[0];
    }

    // Calls body(y) for every row, with its neighbours read.
    template <class Body>
    ASYCMST_INLINE void each_row(const Body& body) {
        read(0);
        for (std::int64_t y = 0; y < p_.height; ++y) {
            read(y + 1);
            body(y);
        }
    }

    static ASYCMST_INLINE V missed(const Row& here, std::int64_t x) {
        return load(here.target + x) * (load(here.saliency + x) - C(1));
    }

    static ASYCMST_INLINE V changes(const C* here, const C* below, std::int64_t x) {
        const V value = load(here + x);
        return magnitude<C>(load(below + x) - value) + magnitude<C>(load(here + x + 1) - value);
    }

    // The signs of both edges in row y. What Sobel's kernels add up at a pixel beyond the border
    // belongs to the border's own pixel: along a kernel's difference the sign goes on with the
    // opposite sign, across it as it is.
    void find_signs(std::int64_t y) {
        if (y >= p_.height) {
            return;
        }
        const C *above = row(y - 1).gap, *here = row(y).gap, *below = row(y + 1).gap;
        const Signs to = signs_[y % 3];
        for (std::int64_t x = 0; x < p_.width; x += lanes) {
            const Edges<C> edges(above, here, below, x);
            store(to.across + x, sign<C>(edges.across));
            store(to.down + x, sign<C>(edges.down));
        }
        const std::int64_t last = p_.width - 1;
        to.across[-1] = -to.across[0];
        to.across[last + 1] = -to.across[last];
        to.down[-1] = to.down[0];
        to.down[last + 1] = to.down[last];
    }

    // The gradients by the change down and by the change to the right of every pixel of row y.
    void find_pulls(std::int64_t y) {
        const Row here = row(y), below = row(y + 1);
        const V a = splat(a_), b = splat(b_), c = splat(c_), affinity = splat(affinity_);
        for (std::int64_t x = 0; x < p_.width; x += lanes) {
            const V value = load(here.saliency + x);
            const V down = load(below.saliency + x) - value;
            const V right = load(here.saliency + x + 1) - value;
            const V r = changes(here.target, below.target, x) * a -
                        (magnitude<C>(down) + magnitude<C>(right)) * b;
            const V slope = affinity * (c - r);
            store(pull_ + x, slope * sign<C>(down));
            store(pull_right_ + x, slope * sign<C>(right));
        }
    }

    void write(std::int64_t y) const {
        const Row here = row(y);
        const Signs above = signs(y - 1), level = signs(y), below = signs(y + 1);
        const V upper = splat(y == 0 ? C(-1) : C(1));
        const V lower = splat(y == p_.height - 1 ? C(-1) : C(1));
        const V reconstruction = splat(reconstruction_), boundary = splat(boundary_);
        IO* to = const_cast<IO*>(line(p_.slope, y));
        for (std::int64_t x = 0; x < p_.width; x += lanes) {
            V across = {}, down = {};
            for (int side = -1; side <= 1; ++side) {
                const C weight = side == 0 ? C(2) : C(1);
                down += weight * (upper * load(above.down + x + side) -
                                  lower * load(below.down + x + side));
                if (side != 0) {
                    across -= C(side) * (load(above.across + x + side) +
                                         C(2) * load(level.across + x + side) +
                                         load(below.across + x + side));
                }
            }
            const V slope = reconstruction * sign<C>(missed(here, x)) * load(here.target + x) -
                            boundary * (across + down) +
                            (load(pull_above_ + x) - load(pull_ + x)) +
                            (load(pull_right_ + x - 1) - load(pull_right_ + x));
            if (x + lanes <= p_.width) {
                store(to + x, slope);
            } else {
                store_first(to + x, slope, p_.width - x);
            }
        }
    }

    const SaliencyProblem& p_;
    const std::int64_t image_;
    const bool has_memory_;
    Arena arena_;
    // Rows y - 1, y and y + 1, or, where their signs are needed, y, y + 1 and y + 2.
    Row rows_[3];
    Signs signs_[3];
    C *pull_above_, *pull_, *pull_right_;
    C a_, b_, c_;
    C reconstruction_, boundary_, affinity_;  // what a pixel's share of each loss is worth
};

template <class IO>
std::size_t saliency_losses_scratch(const SaliencyProblem& problem) {
    return SaliencyTask<IO>(problem, 0, nullptr).scratch_bytes();
}

template <class IO>
void saliency_losses_forward(const SaliencyProblem& problem, std::int64_t image, void* scratch) {
    SaliencyTask<IO>(problem, image, scratch).forward();
}

template <class IO>
void saliency_losses_backward(const SaliencyProblem& problem, std::int64_t image, void* scratch) {
    SaliencyTask<IO>(problem, image, scratch).backward();
}

}  // namespace
}  // namespace asycmst
