// Lane movements: sums and maxima over the lanes of a vector, and the transposition of a tile.
#pragma once

#include <utility>

#include "vec.h"

namespace asycmst {
namespace {

template <class C>
using Lanes = std::make_integer_sequence<int, Vec<C>::lanes>;

// Lanes of the concatenation of `a` and `b` at the given positions.
template <class C, int... kIndex>
ASYCMST_INLINE typename Vec<C>::type shuffle(typename Vec<C>::type a, typename Vec<C>::type b) {
#if defined(__clang__)
    return __builtin_shufflevector(a, b, kIndex...);
#else
    return __builtin_shuffle(a, b, typename Vec<C>::ints{kIndex...});
#endif
}

template <class C, int kStep, int... kLane>
ASYCMST_INLINE typename Vec<C>::type swap_lanes(typename Vec<C>::type a,
                                                std::integer_sequence<int, kLane...>) {
    return shuffle<C, (kLane ^ kStep)...>(a, a);
}

template <class C, int kStep = Vec<C>::lanes / 2>
ASYCMST_INLINE C lane_sum(typename Vec<C>::type v) {
    if constexpr (kStep == 0) {
        return v[0];
    } else {
        return lane_sum<C, kStep / 2>(v + swap_lanes<C, kStep>(v, Lanes<C>{}));
    }
}

template <class C, int kStep = Vec<C>::lanes / 2>
ASYCMST_INLINE C lane_max(typename Vec<C>::type v) {
    if constexpr (kStep == 0) {
        return v[0];
    } else {
        return lane_max<C, kStep / 2>(larger(v, swap_lanes<C, kStep>(v, Lanes<C>{})));
    }
}

template <class C, int kStep, int... kLane>
ASYCMST_INLINE void exchange(typename Vec<C>::type& a, typename Vec<C>::type& b,
                             std::integer_sequence<int, kLane...>) {
    constexpr int lanes = Vec<C>::lanes;
    const auto low = shuffle<C, ((kLane & kStep) == 0 ? kLane : lanes + kLane - kStep)...>(a, b);
    b = shuffle<C, ((kLane & kStep) == 0 ? kLane + kStep : lanes + kLane)...>(a, b);
    a = low;
}

// Transposes a square tile in place: one pass for each bit of the index.
template <class C, int kStep = 1>
ASYCMST_INLINE void transpose(typename Vec<C>::type (&tile)[Vec<C>::lanes]) {
    if constexpr (kStep < Vec<C>::lanes) {
        ASYCMST_UNROLL
        for (int i = 0; i < Vec<C>::lanes; ++i) {
            if ((i & kStep) == 0) {
                exchange<C, kStep>(tile[i], tile[i + kStep], Lanes<C>{});
            }
        }
        transpose<C, 2 * kStep>(tile);
    }
}

}  // namespace
}  // namespace asycmst
