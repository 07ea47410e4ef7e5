// What one task of the gates works on, and how it walks along a row.
#pragma once

#include "gates.h"
#include "part.h"
#include "rows.h"

namespace asycmst {
namespace {

constexpr std::int64_t kGroupBytes = 64;  // of neighbouring channels that one task holds

template <class C>
ASYCMST_INLINE typename Vec<C>::type sigmoid(typename Vec<C>::type x) {
    using V = typename Vec<C>::type;
    const V u = exp_nonpositive(x > C(0) ? -x : x);
    return (x > C(0) ? splat(C(1)) : u) / (u + C(1));
}

// How far a pixel k rows (or columns) into its patch is on the way from one centre to the next.
template <class C>
ASYCMST_INLINE constexpr C far_weight(std::int64_t patch, std::int64_t k) {
    return static_cast<C>(2 * k + 1 - patch + (k < patch / 2 ? 2 * patch : 0)) /
           static_cast<C>(2 * patch);
}

// Calls body(k) for k < count, unrolled where the count is known.
template <int Count, class Body>
ASYCMST_INLINE void repeat(std::int64_t count, const Body& body) {
    if constexpr (Count > 0) {
        ASYCMST_UNROLL
        for (int k = 0; k < Count; ++k) {
            body(k);
        }
    } else {
        for (std::int64_t k = 0; k < count; ++k) {
            body(k);
        }
    }
}

// What one task works on and its memory.
template <class IO, bool Last>
struct GatesTask {
    using C = Compute<IO>;
    using V = typename Vec<C>::type;
    static constexpr std::int64_t lanes = Vec<C>::lanes;
    static constexpr std::int64_t group =
        Last ? kGroupBytes / static_cast<std::int64_t>(sizeof(IO)) : 1;

    GatesTask(const GatesProblem& problem, std::int64_t task, void* memory)
        : p(problem), arena(memory) {
        const std::int64_t count = tasks(p);
        batch = task / count;
        const std::int64_t early = (p.channel_only + group - 1) / group;
        std::int64_t place = task % count;
        spatial = place >= early;
        channel = p.channel_only == 0 || !spatial;
        const std::int64_t end = spatial ? p.channels : p.channel_only;
        first = (spatial ? p.channel_only + (place - early) * group : place * group);
        held = Last ? (end - first < group ? end - first : group) : 1;
        width = Last ? round_to_lanes<C>(group) : 1;
        patch = p.patch;
        strips = (p.height + patch - 1) / patch;
        patches = (p.width + patch - 1) / patch;
        columns = (patches * patch + 1) * width + lanes;
        half = patch / 2;
        far = arena.template take<C>(patch);
        gates = arena.template take<C>(strips * gate_row() + lanes);
        pulls = arena.template take<C>(strips * patches * width + lanes);
        for (C** row : {&sum, &mean, &square, &total, &carry, &ahead, &done, &upper, &middle,
                        &lower, &pull}) {
            *row = arena.template take<C>(columns);
        }
    }

    static std::int64_t tasks(const GatesProblem& p) {
        const std::int64_t late = p.channels - p.channel_only;
        return (p.channel_only + group - 1) / group + (late + group - 1) / group;
    }

    void prepare() {
        for (std::int64_t k = 0; k < patch; ++k) {
            far[k] = far_weight<C>(patch, k);
        }
        for (C* row : {sum, mean, square, total, carry, ahead, done, pull}) {
            __builtin_memset(row, 0, static_cast<std::size_t>(columns) * sizeof(C));
        }
        const IO* from = at(p.x, 0);
        for (std::int64_t l = 0; l < group + lanes; ++l) {
            const C value = Last && l >= held ? C(0) : to_compute(from[Last ? l : 0]);
            pivot[l] = value - value == C(0) ? value : C(0);  // of a finite pixel only
        }
    }

    std::int64_t last_columns() const { return p.width - (patches - 1) * patch; }

    // A row of gates has one more at either end, equal to its neighbour.
    std::int64_t gate_row() const { return (patches + 2) * width; }

    // Known is the side of a patch, or 0 where it is not known in advance.
    template <int Known>
    ASYCMST_INLINE C far_of(std::int64_t k) const {
        return Known > 0 ? far_weight<C>(Known, k) : far[k];
    }

    std::int64_t rows_of(std::int64_t strip) const {
        const std::int64_t left = p.height - strip * patch;
        return left < patch ? left : patch;
    }

    void next_strip() {
        C* spare = upper;
        upper = middle;
        middle = lower;
        lower = spare;
    }

    IO* at(const Maps& maps, std::int64_t strip) const {
        return reinterpret_cast<IO*>(maps.data) + batch * maps.batch + first * maps.channel +
               strip * patch * maps.row;
    }

    const GatesProblem& p;
    Arena arena;
    std::int64_t batch, first, held, width, patch, half, strips, patches, columns;
    bool channel, spatial;
    C *far, *gates, *pulls;
    C *sum, *mean, *square, *total, *carry, *ahead, *done, *upper, *middle, *lower, *pull;
    // By channel (of one map in every lane): a value near the mean, from which mean and square are
    // counted, so that a large mean costs the variance no digits (not the sums of the patches,
    // which would lose theirs to a large first pixel); the gate, the slope of the variance, the
    // mean.
    C pivot[group + lanes], gate[group + lanes], slope[group + lanes], centre[group + lanes];
};

template <class C>
ASYCMST_INLINE typename Vec<C>::type lane_numbers() {
    typename Vec<C>::type numbers = {};
    for (int l = 0; l < Vec<C>::lanes; ++l) {
        numbers[l] = static_cast<C>(l);
    }
    return numbers;
}

// How a whole vector and the rest of a row are read and written.
struct Full {
    template <class IO>
    ASYCMST_INLINE typename Vec<Compute<IO>>::type get(const IO* from) const {
        return load(from);
    }
    template <class IO>
    ASYCMST_INLINE void put(IO* to, typename Vec<Compute<IO>>::type value) const {
        store(to, value);
    }
    template <class C>
    ASYCMST_INLINE typename Vec<C>::type only(typename Vec<C>::type value) const {
        return value;
    }
};

struct Part {
    std::int64_t count;
    template <class IO>
    ASYCMST_INLINE typename Vec<Compute<IO>>::type get(const IO* from) const {
        return load_first(from, count);
    }
    template <class IO>
    ASYCMST_INLINE void put(IO* to, typename Vec<Compute<IO>>::type value) const {
        store_first(to, value, count);
    }
    // Zero in the lanes that hold nothing.
    template <class C>
    ASYCMST_INLINE typename Vec<C>::type only(typename Vec<C>::type value) const {
        return lane_numbers<C>() < static_cast<C>(count) ? value : typename Vec<C>::type{};
    }
};

// Calls body(access, pixel, channel, column) for every vector of a row: where it begins in the
// maps, and among the columns.
template <class IO, bool Last, class Body>
ASYCMST_INLINE void each_vector(const GatesTask<IO, Last>& t, const Body& body) {
    constexpr std::int64_t lanes = GatesTask<IO, Last>::lanes;
    const std::int64_t runs = Last ? t.p.width : 1;
    const std::int64_t length = Last ? t.held : t.p.width;
    for (std::int64_t run = 0; run < runs; ++run) {
        std::int64_t i = 0;
        for (; i + lanes <= length; i += lanes) {
            body(Full{}, Last ? run : i, Last ? i : 0, run * t.width + i);
        }
        if (i < length) {
            body(Part{length - i}, Last ? run : i, Last ? i : 0, run * t.width + i);
        }
    }
}

}  // namespace
}  // namespace asycmst
