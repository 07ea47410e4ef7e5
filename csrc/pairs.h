// Pairs of bfloat16 numbers, whose products the processor adds two at a time in float32, and the
// layouts that products of matrices need: two successive values of the inner dimension in one word.
#pragma once

#if !defined(__AVX512BF16__)
#error "compile this file for processors with AVX512_BF16"
#endif

#include "gemm.h"
#include "rows.h"

namespace asycmst {
namespace {

// Seen in the caller's rows, which start at any number.
struct __attribute__((packed, aligned(2), may_alias)) Pair {
    std::uint32_t bits;
};

template <>
struct Product<Pair> {
    using Sum = float;
    using V = __m512i;

    static ASYCMST_INLINE V broadcast(const Pair* a) {
        return _mm512_set1_epi32(static_cast<int>(a->bits));
    }
    static ASYCMST_INLINE V read(const Pair* b) { return _mm512_loadu_si512(b); }
    static ASYCMST_INLINE VFloat add(VFloat sum, V a, V b) {
        return (VFloat)_mm512_dpbf16_ps((__m512)sum, (__m512bh)a, (__m512bh)b);
    }
};

constexpr std::int64_t kPairLanes = Vec<float>::lanes;

inline std::int64_t pair_count(std::int64_t count) { return (count + 1) / 2; }

// Words [begin, begin + 16) of a row of `channels` numbers, as 16 numbers or zeros beyond.
ASYCMST_INLINE __m256i load_numbers(const BFloat* row, std::int64_t begin, std::int64_t channels) {
    const std::int64_t left = channels - begin;
    const __mmask16 mask =
        left >= 16 ? __mmask16(0xffff) : static_cast<__mmask16>((1u << left) - 1u);
    return _mm256_maskz_loadu_epi16(mask, row + begin);
}

// Pairs (low, high) of 16 numbers each.
ASYCMST_INLINE __m512i join(__m256i low, __m256i high) {
    return _mm512_or_si512(_mm512_cvtepu16_epi32(low),
                           _mm512_slli_epi32(_mm512_cvtepu16_epi32(high), 16));
}

ASYCMST_INLINE __m256i to_bfloat(VFloat value) {
    return (__m256i)_mm512_cvtneps_pbh((__m512)value);
}

// Rows whose pairs lie along the channels: read in place where a row starts a pair and ends one.
struct PairRows {
    const Pair* data;
    std::int64_t stride;  // in pairs
};

inline PairRows read_pairs(const BFloat* from, std::int64_t stride, std::int64_t count,
                           const std::int64_t* index, std::int64_t channels, Pair* buffer) {
    const std::int64_t width = pair_count(channels);
    if (index == nullptr && channels % 2 == 0 && stride % 2 == 0 &&
        !rows_collide(count, channels * 2, stride * 2)) {
        return {reinterpret_cast<const Pair*>(from), stride / 2};
    }
    for (std::int64_t i = 0; i < count; ++i) {
        const BFloat* row = from + (index == nullptr ? i : index[i]) * stride;
        Pair* to = buffer + i * width;
        to[width - 1].bits = 0;
        __builtin_memcpy(to, row, static_cast<std::size_t>(channels) * sizeof(BFloat));
    }
    return {buffer, width};
}

// to[i * width + c] = (row 2i at channel c, row 2i + 1 at channel c), zeros beyond rows and channels.
inline void pair_rows(const BFloat* from, std::int64_t stride, std::int64_t count,
                      const std::int64_t* index, std::int64_t channels, std::int64_t width,
                      Pair* to) {
    for (std::int64_t i = 0; i < count; i += 2, to += width) {
        const BFloat* first = from + (index == nullptr ? i : index[i]) * stride;
        const bool single = i + 1 == count;
        const BFloat* second =
            single ? first : from + (index == nullptr ? i + 1 : index[i + 1]) * stride;
        for (std::int64_t c = 0; c < width; c += kPairLanes) {
            const __m256i high = load_numbers(second, c, channels);
            _mm512_storeu_si512(to + c, join(load_numbers(first, c, channels),
                                             single ? __m256i{} : high));
        }
    }
}

// to[c * width + i] = pair c of row i; rows from `count` on are zero. `width` is a multiple of the
// lanes, and room for a whole number of lanes of pairs is needed.
inline void pair_transposed(const BFloat* from, std::int64_t stride, std::int64_t count,
                            std::int64_t channels, std::int64_t width, Pair* to) {
    for (std::int64_t i = 0; i < width; i += kPairLanes) {
        for (std::int64_t c = 0; c < pair_count(channels); c += kPairLanes) {
            VFloat tile[kPairLanes];
            const std::int64_t left = channels - 2 * c;
            const __mmask32 mask = left >= 32 ? ~__mmask32{0} : (__mmask32{1} << left) - 1;
            ASYCMST_UNROLL
            for (int l = 0; l < kPairLanes; ++l) {
                tile[l] = i + l < count ? (VFloat)_mm512_maskz_loadu_epi16(
                                              mask, from + (i + l) * stride + 2 * c)
                                        : VFloat{};
            }
            transpose<float>(tile);
            ASYCMST_UNROLL
            for (int l = 0; l < kPairLanes; ++l) {
                _mm512_storeu_si512(to + (c + l) * width + i, (__m512i)tile[l]);
            }
        }
    }
}

// to[j * width + i] = (row 2j of the scores, row 2j + 1) at column i.
inline void pair_scores_down(const float* scores, std::int64_t rows, std::int64_t width,
                             Pair* to) {
    for (std::int64_t j = 0; j < rows; j += 2, to += width) {
        const float* first = scores + j * width;
        for (std::int64_t i = 0; i < width; i += kPairLanes) {
            const __m256i high =
                j + 1 < rows ? to_bfloat(load(first + width + i)) : __m256i{};
            _mm512_storeu_si512(to + i, join(to_bfloat(load(first + i)), high));
        }
    }
}

// to[j * width / 2 + i] = columns (2i, 2i + 1) of row j of the scores.
inline void pair_scores_along(const float* scores, std::int64_t rows, std::int64_t width,
                              Pair* to) {
    for (std::int64_t i = 0; i < rows * width; i += kPairLanes) {
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + i / 2), to_bfloat(load(scores + i)));
    }
}

}  // namespace
}  // namespace asycmst
