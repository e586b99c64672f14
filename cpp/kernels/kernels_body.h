// The kernels in terms of sixteen lanes. Included once by each kernels_<set>.cpp, after its
// lanes_<set>.h, so that all instruction sets do the same arithmetic in the same order; only the
// products of dense layers are written for each by hand (`tile_i8`, `tile_f32` and `write_rows`
// below are what such a file provides).
#pragma once

namespace {

namespace k = edge_wm::kernels;
using k::Fold;
using k::Function;
using k::Pair;

constexpr size_t kLanes = k::kLanes;

// Caller guarantees: f may read and write whole blocks of 16 but for the last `n % 16`.
#define FOR_BLOCKS(n) for (size_t at = 0, left = (n); left > 0; \
                           at += kLanes, left = left > kLanes ? left - kLanes : 0)

inline void put(float *out, F16 value, size_t left) {
    if (left >= kLanes) {
        store(out, value);
    } else {
        store_n(out, value, left);
    }
}

// Zero where a row has ended.
inline F16 masked(F16 value, size_t left) {
    return left >= kLanes ? value : select(first(left), value, splat(0.0f));
}

// ---- elementary functions ------------------------------------------------------------------
// e^x: x = n ln 2 + r with |r| <= ln 2 / 2, and the Taylor polynomial of degree 6 of e^r: at most
// 2 units in the last place. NaN stays NaN; below -87.3 gives 0, above 88.37 infinity.
inline F16 exp_of(F16 x) {
    const F16 high = splat(88.375f), low = splat(-87.33f);
    const M16 below = less(x, low), above = less(high, x);
    const F16 inside = larger(low, smaller(high, x));
    const F16 n = round_even(mul(inside, splat(1.44269504f)));
    F16 r = fma(n, splat(-0.693145752f), inside);
    r = fma(n, splat(-1.42860677e-6f), r);
    F16 p = splat(1.38888889e-3f);
    p = fma(p, r, splat(8.33333333e-3f));
    p = fma(p, r, splat(4.16666667e-2f));
    p = fma(p, r, splat(1.66666667e-1f));
    p = fma(p, r, splat(0.5f));
    p = fma(p, r, splat(1.0f));
    p = fma(p, r, splat(1.0f));
    return select(below, splat(0.0f), select(above, splat(INFINITY), mul(p, power_of_two(n))));
}

// ln x (the polynomial of Cephes' logf, S. Moshier 1992): 1 unit in the last place.
inline F16 log_of(F16 x) {
    const F16 tiny = splat(1.17549435e-38f), one = splat(1.0f);
    const M16 small = less(x, tiny);
    const F16 scaled = select(small, mul(x, splat(8388608.0f)), x);
    F16 e = sub(exponent(scaled), select(small, splat(23.0f), splat(0.0f)));
    F16 m = mantissa(scaled);
    const M16 low = less(m, splat(0.707106781f));
    e = sub(e, select(low, one, splat(0.0f)));
    m = sub(select(low, add(m, m), m), one);
    F16 p = splat(7.0376836292e-2f);
    p = fma(p, m, splat(-1.1514610310e-1f));
    p = fma(p, m, splat(1.1676998740e-1f));
    p = fma(p, m, splat(-1.2420140846e-1f));
    p = fma(p, m, splat(1.4249322787e-1f));
    p = fma(p, m, splat(-1.6668057665e-1f));
    p = fma(p, m, splat(2.0000714765e-1f));
    p = fma(p, m, splat(-2.4999993993e-1f));
    p = fma(p, m, splat(3.3333331174e-1f));
    const F16 square = mul(m, m);
    F16 y = mul(mul(p, m), square);
    y = fma(e, splat(-2.12194440e-4f), y);
    y = fma(square, splat(-0.5f), y);
    F16 r = add(m, y);
    r = fma(e, splat(0.693359375f), r);
    const F16 nothing = sub(splat(INFINITY), splat(INFINITY));
    r = select(equal(x, splat(INFINITY)), x, r);
    r = select(equal(x, splat(0.0f)), splat(-INFINITY), r);
    r = select(less(x, splat(0.0f)), nothing, r);
    return select(equal(x, x), r, x);
}

inline F16 sigmoid_of(F16 x) {
    return div(splat(1.0f), add(splat(1.0f), exp_of(negate(x))));
}

// tanh x = 1 - 2 / (e^2x + 1): to 1e-7 absolute, which is what a cell or a layer needs.
inline F16 tanh_of(F16 x) {
    return sub(splat(1.0f), div(splat(2.0f), add(exp_of(add(x, x)), splat(1.0f))));
}

// x tanh(softplus(x)) = x w / (w + 2) with e = e^x, w = e (e + 2); x itself above 20.
inline F16 mish_of(F16 x) {
    const F16 top = splat(20.0f);
    const F16 e = exp_of(smaller(top, x));
    const F16 w = mul(e, add(e, splat(2.0f)));
    return select(less(top, x), x, mul(x, div(w, add(w, splat(2.0f)))));
}

// max(x, 0) + ln(1 + e^-|x|)
inline F16 softplus_of(F16 x) {
    const F16 tail = log_of(add(splat(1.0f), exp_of(negate(absolute(x)))));
    return add(larger(splat(0.0f), x), tail);
}

// erf x = x P(x^2) / Q(x^2) for |x| <= 3.925, where it is 1 in float32: our own fit to 1.6e-8
// (reweighted least squares, November 2026); 3e-7 absolute with the rounding of float32.
inline F16 erf_of(F16 x) {
    const F16 end = splat(3.925f);
    x = larger(negate(end), smaller(end, x));
    const F16 u = mul(x, x);
    F16 p = splat(2.030856127e-6f);
    p = fma(p, u, splat(2.874932854e-4f));
    p = fma(p, u, splat(3.876382840e-3f));
    p = fma(p, u, splat(5.308451814e-2f));
    p = fma(p, u, splat(1.929738687e-1f));
    p = fma(p, u, splat(1.128379020f));
    F16 q = splat(3.803137291e-5f);
    q = fma(q, u, splat(1.189763468e-3f));
    q = fma(q, u, splat(1.518846532e-2f));
    q = fma(q, u, splat(1.151679962e-1f));
    q = fma(q, u, splat(5.043502756e-1f));
    q = fma(q, u, splat(1.0f));
    return div(mul(x, p), q);
}

inline F16 gelu_tanh_of(F16 x) {
    const F16 cube = mul(mul(x, x), x);
    const F16 inner = mul(splat(0.797884561f), fma(splat(0.044715f), cube, x));
    return mul(mul(splat(0.5f), x), add(splat(1.0f), tanh_of(inner)));
}

inline F16 gelu_of(F16 x) {
    const F16 e = erf_of(mul(x, splat(0.707106781f)));
    return mul(mul(splat(0.5f), x), add(splat(1.0f), e));
}

// sin and cos one number at a time, in double: x = n pi/2 + r (Cody and Waite, two parts), then
// Taylor polynomials. Above 1e9 the answer would mean nothing: NaN.
inline float wave(float number, int quarter) {
    const double x = (double)number;
    if (!(x > -1e9 && x < 1e9)) return number - number;
    const double n = rint(x * 0.63661977236758134308);
    double r = x - n * 1.57079632679489655800;
    r = r - n * 6.12323399573676603587e-17;
    const double s = r * r;
    const long long turn = (long long)n + quarter;
    double y;
    if (turn & 1) {
        y = 1.0 + s * (-0.5 + s * (4.16666666666666667e-2 + s * (-1.38888888888888889e-3 +
            s * (2.48015873015873016e-5 + s * (-2.75573192239858907e-7 + s * 2.08767569878680990e-9)))));
    } else {
        y = r + r * s * (-1.66666666666666667e-1 + s * (8.33333333333333333e-3 +
            s * (-1.98412698412698413e-4 + s * (2.75573192239858907e-6 +
            s * (-2.50521083854417188e-8 + s * 1.60590438368216146e-10)))));
    }
    return (float)((turn & 2) ? -y : y);
}
inline F16 waves(F16 x, int quarter) {
    float v[kLanes];
    store(v, x);
    for (size_t i = 0; i < kLanes; ++i) v[i] = wave(v[i], quarter);
    return load(v);
}

inline F16 apply(Function function, F16 x) {
    const F16 zero = splat(0.0f), one = splat(1.0f);
    switch (function) {
        case Function::none: return x;
        case Function::relu: return larger(zero, x);
        case Function::elu: return select(less(x, zero), sub(exp_of(x), one), x);
        case Function::silu: return div(x, add(one, exp_of(negate(x))));
        case Function::gelu: return gelu_of(x);
        case Function::gelu_tanh: return gelu_tanh_of(x);
        case Function::mish: return mish_of(x);
        case Function::tanh: return tanh_of(x);
        case Function::sigmoid: return sigmoid_of(x);
        case Function::softplus: return softplus_of(x);
        case Function::exp: return exp_of(x);
        case Function::log: return log_of(x);
        case Function::sqrt: return sqrt(x);
        case Function::sin: return waves(x, 0);
        case Function::cos: return waves(x, 1);
        case Function::erf: return erf_of(x);
        case Function::abs: return absolute(x);
        case Function::neg: return negate(x);
        case Function::sign:
            return select(less(x, zero), splat(-1.0f), select(less(zero, x), one, x));
        case Function::square: return mul(x, x);
        case Function::reciprocal: return div(one, x);
        case Function::floor: return round_down(x);
        case Function::round: return round_even(x);
        case Function::logical_not: return select(equal(x, zero), one, zero);
    }
    return x;
}

// Calls loop(f) with f(x) = apply(function, x), compiled apart for the functions of hidden layers, so
// that the choice is made once and not for every sixteen numbers.
template <Function F>
struct Fixed {
    F16 operator()(F16 x) const { return apply(F, x); }
};
struct Chosen {
    Function function;
    F16 operator()(F16 x) const { return apply(function, x); }
};
template <typename Loop>
inline void with(Function function, const Loop &loop) {
    switch (function) {
        case Function::none: loop(Fixed<Function::none>()); return;
        case Function::relu: loop(Fixed<Function::relu>()); return;
        case Function::elu: loop(Fixed<Function::elu>()); return;
        case Function::silu: loop(Fixed<Function::silu>()); return;
        case Function::mish: loop(Fixed<Function::mish>()); return;
        case Function::gelu: loop(Fixed<Function::gelu>()); return;
        case Function::tanh: loop(Fixed<Function::tanh>()); return;
        default: loop(Chosen{function});
    }
}

// ---- dense -----------------------------------------------------------------------------------
void quantize(const float *x, size_t x_stride, size_t rows, size_t count, void *q, size_t q_bytes,
              float *scale) {
    for (size_t r = 0; r < rows; ++r, x += x_stride) {
        F16 m = splat(0.0f);
        FOR_BLOCKS(count) { m = absmax(m, masked(load(x + at), left)); }
        const float most = reduce_absmax(m);
        const bool finite = most <= 3.40282347e38f;
        const bool zero = !(most >= 1e-30f) || !finite;
        scale[r] = zero ? (finite ? 0.0f : NAN) : most / 127.0f;
        write_quantized(x, count, zero ? 0.0f : 127.0f / most, zero, (char *)q + r * q_bytes);
    }
}

#ifndef EDGE_WM_OWN_DENSE_I8
// The rows from r on of up to kPanelsI8 panels.
inline void rows_i8(const k::DenseI8 &d, size_t r, size_t panel, size_t together) {
    for (; r + kRowsI8 <= d.rows; r += kRowsI8) tile_i8<kRowsI8>(d, r, panel, together);
    if constexpr (kRowsI8 > 4) {
        for (; r + 4 <= d.rows; r += 4) tile_i8<4>(d, r, panel, together);
    }
    if (r + 2 <= d.rows) tile_i8<2>(d, r, panel, together), r += 2;
    if (r < d.rows) tile_i8<1>(d, r, panel, together);
}

void dense_i8(const k::DenseI8 &d) {
    const size_t end = d.panel + d.panels;
    for (size_t p = d.panel; p < end; p += kPanelsI8) {
        rows_i8(d, 0, p, end - p < kPanelsI8 ? end - p : kPanelsI8);
    }
}
#endif

void dense_f32(const k::DenseF32 &d) {
    for (size_t p = d.panel; p < d.panel + d.panels; ++p) {
        size_t r = 0;
        for (; r + kRowsF32 <= d.rows; r += kRowsF32) tile_f32<kRowsF32>(d, r, p);
        if constexpr (kRowsF32 > 4) {
            for (; r + 4 <= d.rows; r += 4) tile_f32<4>(d, r, p);
        }
        if (r + 2 <= d.rows) tile_f32<2>(d, r, p), r += 2;
        if (r < d.rows) tile_f32<1>(d, r, p);
    }
}

// Whether sixteen outputs can be stored as they are, but for what is added to them: `direct` below.
// `finish` takes longer than the products of a layer of a few dozen inputs.
template <typename Dense>
inline bool is_direct(const Dense &d, size_t panel) {
    return d.function == Function::none && d.n - panel * kLanes >= kLanes;
}
template <typename Dense>
inline void direct(const Dense &d, F16 y, size_t row, size_t panel) {
    float *out = d.out + row * d.out_stride + panel * kLanes;
    if (d.add) y = add(load(out), y);
    if (d.bias) y = add(y, load(d.bias + panel * kLanes));
    store(out, y);
}

// From the sums of products of some rows' sixteen outputs to what the next operation reads. A call
// of its own, through memory: inlined it takes registers from the accumulators of the products.
template <typename Dense>
__attribute__((noinline)) void finish(const Dense &d, const float *sums, size_t rows, size_t row,
                                      size_t panel) {
    const size_t column = panel * kLanes, left = d.n - column;
    const F16 bias = d.bias ? load(d.bias + column) : splat(0.0f);
    with(d.function, [&](auto f) {
        float *out = d.out + row * d.out_stride + column;
        for (size_t r = 0; r < rows; ++r, out += d.out_stride) {
            F16 y = load(sums + r * kLanes);
            if (d.add) y = add(load(out), y);
            if (d.bias) y = add(y, bias);
            put(out, f(y), left);
        }
    });
}

void add_row(float *y, size_t stride, size_t rows, size_t n, const float *row, bool first_segment,
             Function function) {
    for (size_t r = 0; r < rows; ++r, y += stride) {
        FOR_BLOCKS(n) {
            F16 value = first_segment ? load(row + at) : load(y + at);
            if (row && !first_segment) value = add(value, load(row + at));
            put(y + at, apply(function, value), left);
        }
    }
}

// ---- rows ------------------------------------------------------------------------------------
// Mean over n numbers of x (centered) squared, by sixteen sums.
inline float mean_square(const float *x, size_t n, F16 mean) {
    F16 low = splat(0.0f), high = splat(0.0f);
    size_t at = 0;
    for (; at + 2 * kLanes <= n; at += 2 * kLanes) {
        const F16 a = sub(load(x + at), mean), b = sub(load(x + at + kLanes), mean);
        low = fma(a, a, low);
        high = fma(b, b, high);
    }
    for (; at < n; at += kLanes) {
        const F16 a = masked(sub(load(x + at), mean), n - at);
        low = fma(a, a, low);
    }
    return reduce_add(add(low, high)) / (float)n;
}

inline float sum_of(const float *x, size_t n) {
    F16 low = splat(0.0f), high = splat(0.0f);
    size_t at = 0;
    for (; at + 2 * kLanes <= n; at += 2 * kLanes) {
        low = add(low, load(x + at));
        high = add(high, load(x + at + kLanes));
    }
    for (; at < n; at += kLanes) low = add(low, masked(load(x + at), n - at));
    return reduce_add(add(low, high));
}

template <typename F>
inline void norm_row(const k::Norm &d, const float *x, float *out, F f) {
    const F16 mean = splat(d.center ? sum_of(x, d.n) / (float)d.n : 0.0f);
    const F16 scale = splat(1.0f / sqrtf(mean_square(x, d.n, mean) + d.epsilon));
    FOR_BLOCKS(d.n) {
        F16 y = mul(sub(load(x + at), mean), scale);
        if (d.weight) y = mul(y, load(d.weight + at));
        if (d.bias) y = add(y, load(d.bias + at));
        put(out + at, f(y), left);
    }
}

void norm(const k::Norm &d) {
    with(d.function, [&](auto f) {
        for (size_t r = 0; r < d.rows; ++r) {
            norm_row(d, d.x + r * d.x_stride, d.out + r * d.out_stride, f);
        }
    });
}

// Groups of eight that follow each other without gaps: two a block (TD-MPC2's SimNorm).
void softmax_of_8(const float *x, float *out, size_t n) {
    FOR_BLOCKS(n) {
        const F16 value = load(x + at);
        const F16 e = exp_of(sub(value, max_of_8(value)));
        put(out + at, div(e, sum_of_8(e)), left);
    }
}

void softmax(const float *x, size_t x_stride, float *out, size_t out_stride, size_t rows,
             size_t n) {
    if (n == 8 && x_stride == 8 && out_stride == 8) {
        softmax_of_8(x, out, rows * 8);
        return;
    }
    for (size_t r = 0; r < rows; ++r, x += x_stride, out += out_stride) {
        F16 most = splat(-INFINITY);
        FOR_BLOCKS(n) {
            const F16 value = load(x + at);
            most = larger(left >= kLanes ? value : select(first(left), value, splat(-INFINITY)), most);
        }
        const F16 top = splat(reduce_max(most));
        F16 sum = splat(0.0f);
        FOR_BLOCKS(n) {
            const F16 e = exp_of(sub(load(x + at), top));
            sum = add(sum, masked(e, left));
            put(out + at, e, left);
        }
        const F16 total = splat(reduce_add(sum));
        FOR_BLOCKS(n) { put(out + at, div(load(out + at), total), left); }
    }
}

inline float dot(const float *a, const float *b, size_t n) {
    F16 sum = splat(0.0f);
    FOR_BLOCKS(n) { sum = fma(masked(load(a + at), left), masked(load(b + at), left), sum); }
    return reduce_add(sum);
}

// Queries see the keys up to their own; those before the first query, all.
inline size_t keys_seen(const k::Attention &d, size_t query) {
    return d.causal ? d.keys - d.queries + query + 1 : d.keys;
}

void attention_to_few(const k::Attention &d, size_t column) {
    float *scores = d.scratch;
    for (size_t t = 0; t < d.queries; ++t) {
        const size_t seen = keys_seen(d, t);
        const float *q = d.q + t * d.q_stride + column;
        for (size_t s = 0; s < seen; ++s) {
            scores[s] = dot(q, d.k + s * d.k_stride + column, d.size) * d.scale;
        }
        softmax(scores, seen, scores, seen, 1, seen);
        float *out = d.out + t * d.out_stride + column;
        FOR_BLOCKS(d.size) {
            F16 sum = splat(0.0f);
            for (size_t s = 0; s < seen; ++s) {
                sum = fma(splat(scores[s]), load(d.v + s * d.v_stride + column + at), sum);
            }
            put(out + at, sum, left);
        }
    }
}

// Two dense layers whose weights are this head's keys and values.
void attention_to_many(const k::Attention &d, size_t column) {
    const size_t keys = k::padded(d.keys), panels = k::padded(d.size) / kLanes;
    float *packed_keys = d.scratch, *packed_values = packed_keys + keys * d.size;
    float *scores = packed_values + panels * kLanes * d.keys;
    float *to = packed_keys;
    for (size_t p = 0; p < keys; p += kLanes) {
        for (size_t c = 0; c < d.size; ++c) {
            for (size_t i = p; i < p + kLanes; ++i) {
                *to++ = i < d.keys ? d.k[i * d.k_stride + column + c] : 0.0f;
            }
        }
    }
    for (size_t p = 0; p < panels * kLanes; p += kLanes) {
        for (size_t s = 0; s < d.keys; ++s, to += kLanes) {
            store(to, masked(load(d.v + s * d.v_stride + column + p), d.size - p));
        }
    }
    dense_f32({d.q + column, d.q_stride, d.queries, d.size, d.keys, packed_keys, scores, keys,
               false, nullptr, Function::none, 0, keys / kLanes});
    for (size_t t = 0; t < d.queries; ++t) {
        float *row = scores + t * keys;
        const size_t seen = keys_seen(d, t);
        FOR_BLOCKS(seen) { put(row + at, mul(load(row + at), splat(d.scale)), left); }
        softmax(row, keys, row, keys, 1, seen);
        for (size_t s = seen; s < d.keys; ++s) row[s] = 0.0f;
    }
    dense_f32({scores, keys, d.queries, d.keys, d.size, packed_values, d.out + column,
               d.out_stride, false, nullptr, Function::none, 0, panels});
}

void attention(const k::Attention &d) {
    for (size_t h = 0; h < d.heads; ++h) {
        if (d.keys <= k::kFewKeys) {
            attention_to_few(d, h * d.size);
        } else {
            attention_to_many(d, h * d.size);
        }
    }
}

void lstm(const float *const gate[4], const float *c, float *out_h, float *out_c, size_t n) {
    FOR_BLOCKS(n) {
        const F16 i = sigmoid_of(load(gate[0] + at)), f = sigmoid_of(load(gate[1] + at));
        const F16 g = tanh_of(load(gate[2] + at)), o = sigmoid_of(load(gate[3] + at));
        const F16 next = fma(f, load(c + at), mul(i, g));
        put(out_c + at, next, left);
        put(out_h + at, mul(o, tanh_of(next)), left);
    }
}

void gru(const float *const x[3], const float *const h_gates[3], const float *h, float *out,
         size_t n) {
    FOR_BLOCKS(n) {
        const F16 z = sigmoid_of(add(load(x[0] + at), load(h_gates[0] + at)));
        const F16 r = sigmoid_of(add(load(x[1] + at), load(h_gates[1] + at)));
        const F16 candidate = tanh_of(fma(r, load(h_gates[2] + at), load(x[2] + at)));
        const F16 before = load(h + at);
        put(out + at, fma(z, sub(before, candidate), candidate), left);
    }
}

float fold(Fold kind, const float *x, size_t n) {
    if (kind == Fold::sum || kind == Fold::mean) {
        const float total = sum_of(x, n);
        return kind == Fold::sum ? total : total / (float)n;
    }
    // NaN wins, as in numpy: a sum of all differences from themselves is NaN where there is one.
    const bool max = kind == Fold::max;
    F16 best = splat(max ? -INFINITY : INFINITY), strange = splat(0.0f);
    FOR_BLOCKS(n) {
        F16 value = load(x + at);
        if (left < kLanes) value = select(first(left), value, splat(x[0]));
        strange = add(strange, select(equal(value, value), splat(0.0f), value));
        best = max ? larger(value, best) : larger(negate(value), negate(best));
        if (!max) best = negate(best);
    }
    if (reduce_add(strange) != 0.0f) return reduce_add(strange);
    return max ? reduce_max(best) : -reduce_max(negate(best));
}

// ---- numbers ---------------------------------------------------------------------------------
// One number for all, or the next sixteen.
inline F16 operand(const k::Elementwise &e, size_t which, const float *x, size_t at) {
    return e.step[which] ? load(x + at) : splat(*x);
}

void unary(Function function, const k::Elementwise &e) {
    with(function, [&](auto f) {
        const float *x = e.x[0];
        float *out = e.out;
        for (size_t r = 0; r < e.rows; ++r, x += e.row[0], out += e.out_row) {
            FOR_BLOCKS(e.n) { put(out + at, f(operand(e, 0, x, at)), left); }
        }
    });
}

inline F16 pair_of(Pair kind, F16 a, F16 b) {
    const F16 zero = splat(0.0f), one = splat(1.0f);
    switch (kind) {
        case Pair::add: return add(a, b);
        case Pair::sub: return sub(a, b);
        case Pair::mul: return mul(a, b);
        case Pair::div: return div(a, b);
        case Pair::min: return select(equal(a, a), select(less(a, b), a, b), a);
        case Pair::max: return select(equal(a, a), select(less(b, a), a, b), a);
        case Pair::less: return select(less(a, b), one, zero);
        case Pair::greater: return select(less(b, a), one, zero);
        case Pair::equal: return select(equal(a, b), one, zero);
        case Pair::logical_and:
            return select(equal(a, zero), zero, select(equal(b, zero), zero, one));
        case Pair::logical_or:
            return select(equal(a, zero), select(equal(b, zero), zero, one), one);
        case Pair::pow: break;
    }
    float x[kLanes], y[kLanes];
    store(x, a);
    store(y, b);
    for (size_t i = 0; i < kLanes; ++i) x[i] = powf(x[i], y[i]);
    return load(x);
}

template <Pair P>
void pairs(const k::Elementwise &e) {
    const float *a = e.x[0], *b = e.x[1];
    float *out = e.out;
    for (size_t r = 0; r < e.rows; ++r, a += e.row[0], b += e.row[1], out += e.out_row) {
        FOR_BLOCKS(e.n) {
            put(out + at, pair_of(P, operand(e, 0, a, at), operand(e, 1, b, at)), left);
        }
    }
}

void binary(Pair kind, const k::Elementwise &e) {
    switch (kind) {
        case Pair::add: return pairs<Pair::add>(e);
        case Pair::sub: return pairs<Pair::sub>(e);
        case Pair::mul: return pairs<Pair::mul>(e);
        case Pair::div: return pairs<Pair::div>(e);
        case Pair::min: return pairs<Pair::min>(e);
        case Pair::max: return pairs<Pair::max>(e);
        case Pair::pow: return pairs<Pair::pow>(e);
        case Pair::less: return pairs<Pair::less>(e);
        case Pair::greater: return pairs<Pair::greater>(e);
        case Pair::equal: return pairs<Pair::equal>(e);
        case Pair::logical_and: return pairs<Pair::logical_and>(e);
        case Pair::logical_or: return pairs<Pair::logical_or>(e);
    }
}

void select(const k::Elementwise &e) {
    const float *a = e.x[0], *b = e.x[1], *c = e.x[2];
    float *out = e.out;
    const F16 zero = splat(0.0f);
    for (size_t r = 0; r < e.rows; ++r) {
        FOR_BLOCKS(e.n) {
            const M16 other = equal(operand(e, 2, c, at), zero);
            put(out + at, select(other, operand(e, 1, b, at), operand(e, 0, a, at)), left);
        }
        a += e.row[0], b += e.row[1], c += e.row[2], out += e.out_row;
    }
}

}  // namespace
