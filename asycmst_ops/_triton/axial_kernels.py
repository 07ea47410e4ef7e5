"""The axial kernels. One program owns one (batch, group, head) of a token grid.

The group is the frame on the space axis and the position on the time axis; the rows of a tile run
along the other one. Which stride is which is decided by the launcher, so both axes run the same
kernels. The forward pass saves nothing: the backward pass recomputes the weights, takes the row
term of the softmax gradient as sum_k p_k g.V_k, and so never reads the output.
"""

import triton.language as tl

from asycmst_ops._triton.axial_tiles import (
    dot,
    finite_peak,
    inside,
    kept_keys,
    kernel,
    load,
    locate,
    logits,
    reciprocal,
    store_kept,
    tile,
)


@kernel
def forward_kernel(
    out,
    q,
    k,
    v,
    mask,
    out_b: tl.int64,
    out_g: tl.int64,
    out_r: tl.int64,
    out_h: tl.int64,
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
):
    """out = softmax(q k^T scale) v for one (batch, group, head); grid (batches*groups*heads,).

    Args:
        out, q, k, v: Grids; the last dimension is contiguous and has D elements.
        mask: Keys that take part, or any pointer when HAS_MASK is false.
        out_b, out_g, out_r, out_h and so on: Strides over batch, group, row and head, in units of
            UNIT elements for the grids and of one element for the mask.
        groups, heads: Sizes that, with the program id, give batch, group and head.
        q_length, k_length: Rows of the query and of the key tile that exist.
        scale: Factor on q k^T.
        D: Head channels.
        BLOCK_Q, BLOCK_K, BLOCK_D: Tile sizes, powers of two >= 16. The first two cover the axis;
            BLOCK_D covers the channels too, or they are worked on in chunks of BLOCK_D, for what
            else would not fit the registers.
        UNIT: Elements in 16 bytes when all addresses are multiples of 16 bytes, else 1.
        HAS_MASK: Whether `mask` is read.
        PRECISION: "tf32" or "ieee", for float32 operands.
    """
    batch, group, head = locate(groups, heads)
    queries = tl.arange(0, BLOCK_Q)
    keys = tl.arange(0, BLOCK_K)
    columns = tl.arange(0, BLOCK_D)
    present = queries < q_length
    keep = kept_keys(mask, batch, group, mask_b, mask_g, mask_r, 0, keys, k_length, HAS_MASK)

    k_at = tile(k, batch, group, head, k_b, k_g, k_r, k_h, keys, columns, UNIT)
    q_at = tile(q, batch, group, head, q_b, q_g, q_r, q_h, queries, columns, UNIT)
    v_at = tile(v, batch, group, head, v_b, v_g, v_r, v_h, keys, columns, UNIT)
    out_at = tile(out, batch, group, head, out_b, out_g, out_r, out_h, queries, columns, UNIT)
    q_exists = inside(queries, q_length, columns, D, BLOCK_D)
    k_exists = inside(keys, k_length, columns, D, BLOCK_D)

    if BLOCK_D >= D:
        key = load(k_at, k_exists, keep)
        query = load(q_at, q_exists, present)
        value = load(v_at, k_exists, keep)
        scores = dot(query, tl.trans(key), PRECISION)
    else:
        scores = tl.zeros([BLOCK_Q, BLOCK_K], tl.float32)
        for first in range(0, D, BLOCK_D):
            q_exists = inside(queries, q_length, first + columns, D, BLOCK_D)
            k_exists = inside(keys, k_length, first + columns, D, BLOCK_D)
            key = load(k_at + first, k_exists, keep)
            query = load(q_at + first, q_exists, present)
            scores += dot(query, tl.trans(key), PRECISION)

    scores = logits(scores, scale, keep)
    peak = finite_peak(tl.max(scores, 1), HAS_MASK)
    weights = tl.exp2(scores - peak[:, None])
    norm = reciprocal(tl.sum(weights, 1), HAS_MASK)
    weights = weights.to(v.dtype.element_ty)

    if BLOCK_D >= D:
        result = dot(weights, value, PRECISION) * norm[:, None]
        tl.store(out_at, result.to(out.dtype.element_ty), mask=q_exists)
    else:
        for first in range(0, D, BLOCK_D):
            q_exists = inside(queries, q_length, first + columns, D, BLOCK_D)
            k_exists = inside(keys, k_length, first + columns, D, BLOCK_D)
            value = load(v_at + first, k_exists, keep)
            result = dot(weights, value, PRECISION) * norm[:, None]
            tl.store(out_at + first, result.to(out.dtype.element_ty), mask=q_exists)


@kernel
def backward_kernel(
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
):
    """dq, dk, dv for one (batch, group, head); arguments and grid as for `forward_kernel`.

    With p the weights and g the upstream gradient: dv_j = sum_i p_ij g_i, ds_ij = p_ij (g_i.v_j -
    sum_k p_ik g_i.v_k), dq_i = scale sum_j ds_ij k_j, dk_j = scale sum_i ds_ij q_i. The order of
    the statements is chosen for registers: keys and values are loaded first, each gradient is
    stored before the next one is computed. A chunked launch reads its inputs twice.
    """
    batch, group, head = locate(groups, heads)
    queries = tl.arange(0, BLOCK_Q)
    keys = tl.arange(0, BLOCK_K)
    columns = tl.arange(0, BLOCK_D)
    present = queries < q_length
    keep = kept_keys(mask, batch, group, mask_b, mask_g, mask_r, 0, keys, k_length, HAS_MASK)

    k_at = tile(k, batch, group, head, k_b, k_g, k_r, k_h, keys, columns, UNIT)
    v_at = tile(v, batch, group, head, v_b, v_g, v_r, v_h, keys, columns, UNIT)
    q_at = tile(q, batch, group, head, q_b, q_g, q_r, q_h, queries, columns, UNIT)
    g_at = tile(grad, batch, group, head, grad_b, grad_g, grad_r, grad_h, queries, columns, UNIT)
    dq_at = tile(dq, batch, group, head, dq_b, dq_g, dq_r, dq_h, queries, columns, UNIT)
    dv_at = tile(dv, batch, group, head, dv_b, dv_g, dv_r, dv_h, keys, columns, UNIT)
    dk_at = tile(dk, batch, group, head, dk_b, dk_g, dk_r, dk_h, keys, columns, UNIT)
    q_exists = inside(queries, q_length, columns, D, BLOCK_D)
    k_exists = inside(keys, k_length, columns, D, BLOCK_D)

    if BLOCK_D >= D:
        key = load(k_at, k_exists, keep)
        value = load(v_at, k_exists, keep)
        query = load(q_at, q_exists, present)
        upstream = load(g_at, q_exists, present)
        scores = dot(query, tl.trans(key), PRECISION)
    else:
        scores = tl.zeros([BLOCK_Q, BLOCK_K], tl.float32)
        weight_grad = tl.zeros([BLOCK_Q, BLOCK_K], tl.float32)
        for first in range(0, D, BLOCK_D):
            q_exists = inside(queries, q_length, first + columns, D, BLOCK_D)
            k_exists = inside(keys, k_length, first + columns, D, BLOCK_D)
            key = load(k_at + first, k_exists, keep)
            query = load(q_at + first, q_exists, present)
            scores += dot(query, tl.trans(key), PRECISION)
            value = load(v_at + first, k_exists, keep)
            upstream = load(g_at + first, q_exists, present)
            weight_grad += dot(upstream, tl.trans(value), PRECISION)

    scores = logits(scores, scale, keep)
    peak = finite_peak(tl.max(scores, 1), HAS_MASK)
    weights = tl.exp2(scores - peak[:, None])
    weights = weights * reciprocal(tl.sum(weights, 1), HAS_MASK)[:, None]
    if BLOCK_D >= D:
        weight_grad = dot(upstream, tl.trans(value), PRECISION)
    mean = tl.sum(weights * weight_grad, 1)
    score_grad = weights * (weight_grad - mean[:, None])
    if HAS_MASK:
        # A weight of 0 times an infinite gradient would be NaN.
        score_grad = tl.where(keep[None, :], score_grad, 0.0)
    score_grad = score_grad.to(k.dtype.element_ty)
    weights = weights.to(k.dtype.element_ty)

    if BLOCK_D >= D:
        query_grad = dot(score_grad, key, PRECISION) * scale
        tl.store(dq_at, query_grad.to(dq.dtype.element_ty), mask=q_exists)
        store_kept(dv_at, dot(tl.trans(weights), upstream, PRECISION), k_exists, keep, HAS_MASK)
        key_grad = dot(tl.trans(score_grad), query, PRECISION) * scale
        store_kept(dk_at, key_grad, k_exists, keep, HAS_MASK)
    else:
        for first in range(0, D, BLOCK_D):
            q_exists = inside(queries, q_length, first + columns, D, BLOCK_D)
            k_exists = inside(keys, k_length, first + columns, D, BLOCK_D)
            key = load(k_at + first, k_exists, keep)
            query_grad = dot(score_grad, key, PRECISION) * scale
            tl.store(dq_at + first, query_grad.to(dq.dtype.element_ty), mask=q_exists)
            upstream = load(g_at + first, q_exists, present)
            value_grad = dot(tl.trans(weights), upstream, PRECISION)
            store_kept(dv_at + first, value_grad, k_exists, keep, HAS_MASK)
            query = load(q_at + first, q_exists, present)
            key_grad = dot(tl.trans(score_grad), query, PRECISION) * scale
            store_kept(dk_at + first, key_grad, k_exists, keep, HAS_MASK)
