"""Attention in blocks, for axes of any length and for softmaxes over two axes.

One program owns a block of queries (or of keys) of one (batch, group, head) and loops over the
keys (or the queries), so no tile holds a whole axis. Every sum has one owner and a fixed order:
no atomics, and nothing but the result is written in the dtype of the grids.

What a query remembers between launches is its `state`: the maximum of its logits, the sum of the
weights under that maximum, and their sum weighted with g.V_k. The first two are kept apart instead
of as log-sum-exp, because beside logits of 1e8 the logarithm of the sum would be rounded away. A
launch may begin with the state another one left behind: that is how the softmax over a column and
a frame is formed, the column leaving out the query's own place, which the frame has counted.
"""

import triton.language as tl

from asycmst_ops._triton.axial_tiles import (
    distance,
    dot,
    finite_peak,
    inside,
    kept_keys,
    kernel,
    load_rows,
    locate_block,
    pairs,
    plane,
    reciprocal,
    store_kept,
    tile,
)


@kernel
def forward_kernel(
    out,
    state,
    q,
    k,
    v,
    mask,
    out_b: tl.int64,
    out_g: tl.int64,
    out_r: tl.int64,
    out_h: tl.int64,
    state_p: tl.int64,
    state_b: tl.int64,
    state_g: tl.int64,
    state_r: tl.int64,
    state_h: tl.int64,
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
    CONTINUE: tl.constexpr,
    SAVE: tl.constexpr,
    SKIP_SELF: tl.constexpr,
):
    """out = softmax(q k^T scale) v for one block of queries; grid (blocks*batches*groups*heads,).

    Args:
        out, q, k, v: Grids; the last dimension is contiguous and has D elements.
        state: float32, planes of one element for each query; any pointer if neither read nor
            written.
        mask: Keys that take part, or any pointer when HAS_MASK is false.
        out_b, out_g, out_r, out_h and so on: Strides over batch, group, row and head, in units of
            UNIT elements for the grids and of one element for the state and the mask; `state_p` is
            the stride over the planes.
        groups, heads: Sizes that, with the program id, give batch, group, head and block.
        q_length, k_length: Queries and keys along the axis.
        scale: Factor on q k^T.
        D: Head channels.
        BLOCK_Q, BLOCK_K: Queries and keys of a tile, powers of two from 16 to 64.
        BLOCK_D: The power of two >= 16 that holds D.
        UNIT, HAS_MASK, PRECISION: As for whole axes.
        CONTINUE: Begin with `out` and `state` as an earlier launch left them.
        SAVE: Write the first two planes of the state.
        SKIP_SELF: The key in a query's own place takes no part.
    """
    batch, group, head, block = locate_block(groups, heads, tl.cdiv(q_length, BLOCK_Q))
    queries = block * BLOCK_Q + tl.arange(0, BLOCK_Q)
    lanes = tl.arange(0, BLOCK_K)
    columns = tl.arange(0, BLOCK_D)
    present = queries < q_length
    exists = inside(queries, q_length, columns, D, BLOCK_D)

    q_at = tile(q, batch, group, head, q_b, q_g, q_r, q_h, queries, columns, UNIT)
    k_at = tile(k, batch, group, head, k_b, k_g, k_r, k_h, lanes, columns, UNIT)
    v_at = tile(v, batch, group, head, v_b, v_g, v_r, v_h, lanes, columns, UNIT)
    out_at = tile(out, batch, group, head, out_b, out_g, out_r, out_h, queries, columns, UNIT)
    state_at = plane(state, batch, group, head, state_b, state_g, state_r, state_h, queries)

    query = tl.load(q_at, mask=exists, other=0.0)
    if CONTINUE:
        peak = tl.load(state_at, mask=present, other=float("-inf"))
        total = tl.load(state_at + state_p, mask=present, other=0.0)
        result = tl.load(out_at, mask=exists, other=0.0).to(tl.float32) * total[:, None]
    else:
        peak = tl.full([BLOCK_Q], float("-inf"), tl.float32)
        total = tl.zeros([BLOCK_Q], tl.float32)
        result = tl.zeros([BLOCK_Q, BLOCK_D], tl.float32)

    for first in range(0, k_length, BLOCK_K):
        keys = first + lanes
        keep = kept_keys(
            mask, batch, group, mask_b, mask_g, mask_r, first, lanes, k_length, HAS_MASK
        )
        there = inside(keys, k_length, columns, D, BLOCK_D)
        key = load_rows(k_at + distance(first, k_r) * UNIT, there, keep, HAS_MASK)
        value = load_rows(v_at + distance(first, v_r) * UNIT, there, keep, HAS_MASK)
        taken = pairs(queries, keys, keep, SKIP_SELF)
        scores = dot(query, tl.trans(key), PRECISION) * (scale * 1.4426950408889634)
        scores = tl.where(taken, scores, float("-inf"))
        raised = tl.maximum(peak, tl.max(scores, 1))
        base = finite_peak(raised, True)
        weights = tl.exp2(scores - base[:, None])
        fade = tl.exp2(peak - base)
        total = total * fade + tl.sum(weights, 1)
        result = result * fade[:, None] + dot(weights.to(v.dtype.element_ty), value, PRECISION)
        peak = raised

    result = result * reciprocal(total, True)[:, None]
    tl.store(out_at, result.to(out.dtype.element_ty), mask=exists)
    if SAVE:
        tl.store(state_at, peak, mask=present)
        tl.store(state_at + state_p, total, mask=present)


@kernel
def query_kernel(
    dq,
    state,
    grad,
    q,
    k,
    v,
    mask,
    dq_b: tl.int64,
    dq_g: tl.int64,
    dq_r: tl.int64,
    dq_h: tl.int64,
    state_p: tl.int64,
    state_b: tl.int64,
    state_g: tl.int64,
    state_r: tl.int64,
    state_h: tl.int64,
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
    BEGIN: tl.constexpr,
    SAVE: tl.constexpr,
    WRITE: tl.constexpr,
    SKIP_SELF: tl.constexpr,
):
    """The state of one block of queries and their gradient; arguments as for `forward_kernel`.

    The row term of the softmax gradient is taken as sum_k p_k g.V_k, so the output is not needed.
    It must be known before the gradient can be: the first loop forms the state, the second one dq,
    and the program reads its queries and its upstream gradient once for both.

    Args:
        BEGIN: "new" forms the state, "continued" adds the keys of this axis to the state found,
            "given" takes it as it is.
        SAVE: Write the three planes of the state.
        WRITE: "no" writes no gradient, "set" fills `dq`, "add" adds to what it holds.
    """
    batch, group, head, block = locate_block(groups, heads, tl.cdiv(q_length, BLOCK_Q))
    queries = block * BLOCK_Q + tl.arange(0, BLOCK_Q)
    lanes = tl.arange(0, BLOCK_K)
    columns = tl.arange(0, BLOCK_D)
    present = queries < q_length
    exists = inside(queries, q_length, columns, D, BLOCK_D)

    q_at = tile(q, batch, group, head, q_b, q_g, q_r, q_h, queries, columns, UNIT)
    g_at = tile(grad, batch, group, head, grad_b, grad_g, grad_r, grad_h, queries, columns, UNIT)
    k_at = tile(k, batch, group, head, k_b, k_g, k_r, k_h, lanes, columns, UNIT)
    v_at = tile(v, batch, group, head, v_b, v_g, v_r, v_h, lanes, columns, UNIT)
    dq_at = tile(dq, batch, group, head, dq_b, dq_g, dq_r, dq_h, queries, columns, UNIT)
    state_at = plane(state, batch, group, head, state_b, state_g, state_r, state_h, queries)

    query = tl.load(q_at, mask=exists, other=0.0)
    upstream = tl.load(g_at, mask=exists, other=0.0)
    if BEGIN == "new":
        peak = tl.full([BLOCK_Q], float("-inf"), tl.float32)
        total = tl.zeros([BLOCK_Q], tl.float32)
        share = tl.zeros([BLOCK_Q], tl.float32)
    else:
        peak = tl.load(state_at, mask=present, other=float("-inf"))
        total = tl.load(state_at + state_p, mask=present, other=0.0)
        share = tl.load(state_at + 2 * state_p, mask=present, other=0.0)

    if BEGIN != "given":
        for first in range(0, k_length, BLOCK_K):
            keys = first + lanes
            keep = kept_keys(
                mask, batch, group, mask_b, mask_g, mask_r, first, lanes, k_length, HAS_MASK
            )
            there = inside(keys, k_length, columns, D, BLOCK_D)
            key = load_rows(k_at + distance(first, k_r) * UNIT, there, keep, HAS_MASK)
            value = load_rows(v_at + distance(first, v_r) * UNIT, there, keep, HAS_MASK)
            taken = pairs(queries, keys, keep, SKIP_SELF)
            scores = dot(query, tl.trans(key), PRECISION) * (scale * 1.4426950408889634)
            scores = tl.where(taken, scores, float("-inf"))
            raised = tl.maximum(peak, tl.max(scores, 1))
            base = finite_peak(raised, True)
            weights = tl.exp2(scores - base[:, None])
            fade = tl.exp2(peak - base)
            total = total * fade + tl.sum(weights, 1)
            weight_grad = dot(upstream, tl.trans(value), PRECISION)
            share = share * fade + tl.sum(weights * weight_grad, 1)
            peak = raised

    if SAVE:
        tl.store(state_at, peak, mask=present)
        tl.store(state_at + state_p, total, mask=present)
        tl.store(state_at + 2 * state_p, share, mask=present)

    if WRITE != "no":
        base = finite_peak(peak, True)
        norm = reciprocal(total, True)
        mean = share * norm
        query_grad = tl.zeros([BLOCK_Q, BLOCK_D], tl.float32)
        for first in range(0, k_length, BLOCK_K):
            keys = first + lanes
            keep = kept_keys(
                mask, batch, group, mask_b, mask_g, mask_r, first, lanes, k_length, HAS_MASK
            )
            there = inside(keys, k_length, columns, D, BLOCK_D)
            key = load_rows(k_at + distance(first, k_r) * UNIT, there, keep, HAS_MASK)
            value = load_rows(v_at + distance(first, v_r) * UNIT, there, keep, HAS_MASK)
            taken = pairs(queries, keys, keep, SKIP_SELF)
            scores = dot(query, tl.trans(key), PRECISION) * (scale * 1.4426950408889634)
            weight_grad = dot(upstream, tl.trans(value), PRECISION)
            weights = tl.exp2(scores - base[:, None]) * norm[:, None]
            score_grad = tl.where(taken, weights * (weight_grad - mean[:, None]), 0.0)
            query_grad += dot(score_grad.to(k.dtype.element_ty), key, PRECISION)
        query_grad *= scale
        if WRITE == "add":
            query_grad += tl.load(dq_at, mask=exists, other=0.0).to(tl.float32)
        tl.store(dq_at, query_grad.to(dq.dtype.element_ty), mask=exists)


@kernel
def key_kernel(
    dk,
    dv,
    state,
    grad,
    q,
    k,
    v,
    mask,
    dk_b: tl.int64,
    dk_g: tl.int64,
    dk_r: tl.int64,
    dk_h: tl.int64,
    dv_b: tl.int64,
    dv_g: tl.int64,
    dv_r: tl.int64,
    dv_h: tl.int64,
    state_p: tl.int64,
    state_b: tl.int64,
    state_g: tl.int64,
    state_r: tl.int64,
    state_h: tl.int64,
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
    WRITE: tl.constexpr,
    SKIP_SELF: tl.constexpr,
):
    """dk and dv of one block of keys, from the finished state; arguments as for `query_kernel`.

    The logits come from the same product of the same tiles as in `query_kernel`, so that they
    never exceed the maximum that it found.
    """
    batch, group, head, block = locate_block(groups, heads, tl.cdiv(k_length, BLOCK_K))
    lanes = tl.arange(0, BLOCK_K)
    keys = block * BLOCK_K + lanes
    rows = tl.arange(0, BLOCK_Q)
    columns = tl.arange(0, BLOCK_D)
    exists = inside(keys, k_length, columns, D, BLOCK_D)
    keep = kept_keys(
        mask, batch, group, mask_b, mask_g, mask_r, block * BLOCK_K, lanes, k_length, HAS_MASK
    )

    k_at = tile(k, batch, group, head, k_b, k_g, k_r, k_h, keys, columns, UNIT)
    v_at = tile(v, batch, group, head, v_b, v_g, v_r, v_h, keys, columns, UNIT)
    q_at = tile(q, batch, group, head, q_b, q_g, q_r, q_h, rows, columns, UNIT)
    g_at = tile(grad, batch, group, head, grad_b, grad_g, grad_r, grad_h, rows, columns, UNIT)
    dk_at = tile(dk, batch, group, head, dk_b, dk_g, dk_r, dk_h, keys, columns, UNIT)
    dv_at = tile(dv, batch, group, head, dv_b, dv_g, dv_r, dv_h, keys, columns, UNIT)
    state_at = plane(state, batch, group, head, state_b, state_g, state_r, state_h, rows)

    key = load_rows(k_at, exists, keep, HAS_MASK)
    value = load_rows(v_at, exists, keep, HAS_MASK)
    key_grad = tl.zeros([BLOCK_K, BLOCK_D], tl.float32)
    value_grad = tl.zeros([BLOCK_K, BLOCK_D], tl.float32)
    for first in range(0, q_length, BLOCK_Q):
        queries = first + rows
        present = queries < q_length
        there = inside(queries, q_length, columns, D, BLOCK_D)
        query = tl.load(q_at + distance(first, q_r) * UNIT, mask=there, other=0.0)
        upstream = tl.load(g_at + distance(first, grad_r) * UNIT, mask=there, other=0.0)
        row_at = state_at + distance(first, state_r)
        base = finite_peak(tl.load(row_at, mask=present, other=0.0), True)
        norm = reciprocal(tl.load(row_at + state_p, mask=present, other=1.0), True)
        mean = tl.load(row_at + 2 * state_p, mask=present, other=0.0) * norm
        taken = pairs(queries, keys, keep, SKIP_SELF)
        scores = dot(query, tl.trans(key), PRECISION) * (scale * 1.4426950408889634)
        weights = tl.where(taken, tl.exp2(scores - base[:, None]) * norm[:, None], 0.0)
        value_grad += dot(tl.trans(weights.to(q.dtype.element_ty)), upstream, PRECISION)
        weight_grad = dot(upstream, tl.trans(value), PRECISION)
        score_grad = tl.where(taken, weights * (weight_grad - mean[:, None]), 0.0)
        key_grad += dot(tl.trans(score_grad.to(q.dtype.element_ty)), query, PRECISION)
    key_grad *= scale
    if WRITE == "add":
        key_grad += tl.load(dk_at, mask=exists, other=0.0).to(tl.float32)
        value_grad += tl.load(dv_at, mask=exists, other=0.0).to(tl.float32)
    store_kept(dk_at, key_grad, exists, keep, HAS_MASK)
    store_kept(dv_at, value_grad, exists, keep, HAS_MASK)
