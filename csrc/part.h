// Loads and stores of fewer elements than a vector holds.
#pragma once

#include "vec.h"

namespace asycmst {
namespace {

// The first `count` elements, 1 <= count <= lanes, and zeros.
template <class IO>
ASYCMST_INLINE typename Vec<Compute<IO>>::type load_first(const IO* from, std::int64_t count) {
    using C = Compute<IO>;
    C values[Vec<C>::lanes] = {};
    for (std::int64_t i = 0; i < count; ++i) {
        values[i] = to_compute(from[i]);
    }
    return load(values);
}

template <class IO>
ASYCMST_INLINE void store_first(IO* to, typename Vec<Compute<IO>>::type value,
                                std::int64_t count) {
    using C = Compute<IO>;
    C values[Vec<C>::lanes];
    store(values, value);
    for (std::int64_t i = 0; i < count; ++i) {
        from_compute(values[i], to + i);
    }
}

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__)

ASYCMST_INLINE __mmask16 first_lanes(std::int64_t count) {
    return static_cast<__mmask16>((1u << count) - 1);
}

template <>
ASYCMST_INLINE VFloat load_first<float>(const float* from, std::int64_t count) {
    return (VFloat)_mm512_maskz_loadu_ps(first_lanes(count), from);
}

template <>
ASYCMST_INLINE VDouble load_first<double>(const double* from, std::int64_t count) {
    return (VDouble)_mm512_maskz_loadu_pd(static_cast<__mmask8>(first_lanes(count)), from);
}

template <>
ASYCMST_INLINE VFloat load_first<Half>(const Half* from, std::int64_t count) {
    return (VFloat)_mm512_cvtph_ps(_mm256_maskz_loadu_epi16(first_lanes(count), from));
}

template <>
ASYCMST_INLINE VFloat load_first<BFloat>(const BFloat* from, std::int64_t count) {
    const __m256i bits = _mm256_maskz_loadu_epi16(first_lanes(count), from);
    return (VFloat)_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16);
}

template <>
ASYCMST_INLINE void store_first<float>(float* to, VFloat value, std::int64_t count) {
    _mm512_mask_storeu_ps(to, first_lanes(count), (__m512)value);
}

template <>
ASYCMST_INLINE void store_first<double>(double* to, VDouble value, std::int64_t count) {
    _mm512_mask_storeu_pd(to, static_cast<__mmask8>(first_lanes(count)), (__m512d)value);
}

template <>
ASYCMST_INLINE void store_first<Half>(Half* to, VFloat value, std::int64_t count) {
    Half values[Vec<float>::lanes];
    store(values, value);
    const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(values));
    _mm256_mask_storeu_epi16(to, first_lanes(count), bits);
}

template <>
ASYCMST_INLINE void store_first<BFloat>(BFloat* to, VFloat value, std::int64_t count) {
    BFloat values[Vec<float>::lanes];
    store(values, value);
    const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(values));
    _mm256_mask_storeu_epi16(to, first_lanes(count), bits);
}

#endif

}  // namespace
}  // namespace asycmst
