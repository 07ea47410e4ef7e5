"""A backward kernel that the static audit must report; compiled only, never launched.

Its arguments are those of `asycmst_ops._triton.axial_kernels.backward_kernel` and one more.
"""

import triton.language as tl

from asycmst_ops._triton.axial_tiles import dot, inside, kernel, locate, logits, tile


@kernel
def query_first(
    dq,
    dk,
    dv,
    grad,
    q,
    k,
    v,
    mask,
    dq_b: tl.int64,
    dq_g: tl.int64,
    dq_r: tl.int64,
    dq_h: tl.int64,
    dk_b: tl.int64,
    dk_g: tl.int64,
    dk_r: tl.int64,
    dk_h: tl.int64,
    dv_b: tl.int64,
    dv_g: tl.int64,
    dv_r: tl.int64,
    dv_h: tl.int64,
    grad_b: tl.int64,
    grad_g: tl.int64,
    grad_r: tl.int64,
    grad_h: tl.int64,
    q_b: tl.int64,
    q_g: tl.int64,
    q_r: tl.int64,
    q_h: tl.int64,
    k_b: tl.int64,
    k_g: tl.int64,
    k_r: tl.int64,
    k_h: tl.int64,
    v_b: tl.int64,
    v_g: tl.int64,
    v_r: tl.int64,
    v_h: tl.int64,
    mask_b: tl.int64,
    mask_g: tl.int64,
    mask_r: tl.int64,
    groups: tl.int32,
    heads: tl.int32,
    q_length: tl.int32,
    k_length: tl.int32,
    scale: tl.float32,
    D: tl.constexpr,
    BLOCK_Q: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_D: tl.constexpr,
    UNIT: tl.constexpr,
    HAS_MASK: tl.constexpr,
    PRECISION: tl.constexpr,
    ATOMIC: tl.constexpr,
):
    """Queries loaded first and dV stored early: more tiles live at once, more registers."""
    batch, group, head = locate(groups, heads)
    queries = tl.arange(0, BLOCK_Q)
    keys = tl.arange(0, BLOCK_K)
    columns = tl.arange(0, BLOCK_D)
    q_exists = inside(queries, q_length, columns, D, BLOCK_D)
    k_exists = inside(keys, k_length, columns, D, BLOCK_D)
    q_at = tile(q, batch, group, head, q_b, q_g, q_r, q_h, queries, columns, UNIT)
    g_at = tile(grad, batch, group, head, grad_b, grad_g, grad_r, grad_h, queries, columns, UNIT)
    k_at = tile(k, batch, group, head, k_b, k_g, k_r, k_h, keys, columns, UNIT)
    v_at = tile(v, batch, group, head, v_b, v_g, v_r, v_h, keys, columns, UNIT)
    dq_at = tile(dq, batch, group, head, dq_b, dq_g, dq_r, dq_h, queries, columns, UNIT)
    dk_at = tile(dk, batch, group, head, dk_b, dk_g, dk_r, dk_h, keys, columns, UNIT)
    dv_at = tile(dv, batch, group, head, dv_b, dv_g, dv_r, dv_h, keys, columns, UNIT)

    query = tl.load(q_at, mask=q_exists, other=0.0)
    key = tl.load(k_at, mask=k_exists, other=0.0)
    value = tl.load(v_at, mask=k_exists, other=0.0)
    upstream = tl.load(g_at, mask=q_exists, other=0.0)
    scores = logits(dot(query, tl.trans(key), PRECISION), scale, keys < k_length)
    weights = tl.exp2(scores - tl.max(scores, 1)[:, None])
    weights = weights / tl.sum(weights, 1)[:, None]
    value_grad = dot(tl.trans(weights.to(v.dtype.element_ty)), upstream, PRECISION)
    tl.store(dv_at, value_grad.to(dv.dtype.element_ty), mask=k_exists)
    weight_grad = dot(upstream, tl.trans(value), PRECISION)
    mean = tl.sum(weights * weight_grad, 1)
    score_grad = (weights * (weight_grad - mean[:, None]) * scale).to(k.dtype.element_ty)
    query_grad = dot(score_grad, key, PRECISION)
    key_grad = dot(tl.trans(score_grad), query, PRECISION)
    if ATOMIC:
        tl.atomic_add(dq_at, query_grad.to(dq.dtype.element_ty), mask=q_exists)
    else:
        tl.store(dq_at, query_grad.to(dq.dtype.element_ty), mask=q_exists)
    tl.store(dk_at, key_grad.to(dk.dtype.element_ty), mask=k_exists)
