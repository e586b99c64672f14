// Kernels for x86 with AMX: those of AVX-512 VNNI, but int8 products of sixteen rows and more come
// from tiles.
//
// tdpbusd takes 16 rows of 64 unsigned bytes and 64 inputs of 16 outputs as vpdpbusd's weights are
// packed, and adds 16 x 16 sums. Two tiles of rows meet two of outputs in eight registers, so that
// each tile that is loaded serves twice. The rows that are left over, layers of fewer than 64 inputs
// and single rows take vpdpbusd on the same weights. The tiles are given back after each layer: a
// thread that holds them pays 8 kB at every context switch.
#include "kernels.h"

namespace {
constexpr std::size_t kTileInputs = 64;

// Whole tiles; a layer without one takes vpdpbusd alone.
constexpr std::size_t packed_inputs(std::size_t k) {
    return edge_wm::kernels::padded(k, k < kTileInputs ? 4 : kTileInputs);
}
}  // namespace

#include "dense_avx512.h"

namespace {

constexpr size_t kTileRows = 16;

struct alignas(64) TileShapes {  // Intel SDM vol. 1, 18.3: all eight of 16 rows of 64 bytes
    uint8_t palette = 1, start_row = 0, reserved[14] = {};
    uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};
constexpr TileShapes kShapes;

// From one tile's sums to what the next operation reads.
void leave_tile(const k::DenseI8 &d, const int32_t *tile, size_t row, size_t panel) {
    const int32_t *offsets = (const int32_t *)((const char *)d.weight +
                                               k::padded(d.n) * packed_inputs(d.k)) + panel * 16;
    const __m512i offset = _mm512_loadu_si512(offsets);
    const F16 scale = load(d.scale + panel * kLanes);
    const auto scaled = [&](size_t r) {
        const __m512i sum = _mm512_sub_epi32(_mm512_load_si512(tile + r * 16), offset);
        return mul(_mm512_cvtepi32_ps(sum), mul(splat(d.x_scale[row + r]), scale));
    };
    if (is_direct(d, panel)) {
        for (size_t r = 0; r < kTileRows; ++r) direct(d, scaled(r), row + r, panel);
        return;
    }
    alignas(64) float sums[kTileRows * kLanes];
    for (size_t r = 0; r < kTileRows; ++r) store(sums + r * kLanes, scaled(r));
    finish(d, sums, kTileRows, row, panel);
}

// Tiles 0 to 3: sums, [rows][outputs]; 4 and 5: rows; 6 and 7: weights.
template <bool TwoRows, bool TwoPanels>
void tiles_i8(const k::DenseI8 &d, size_t row, size_t panel) {
    const size_t inputs = packed_inputs(d.k);
    const char *x = (const char *)d.x + row * d.x_bytes, *below = x + kTileRows * d.x_bytes;
    const char *w = (const char *)d.weight + panel * inputs * 16, *beside = w + inputs * 16;
    _tile_zero(0);
    if constexpr (TwoPanels) _tile_zero(1);
    if constexpr (TwoRows) _tile_zero(2);
    if constexpr (TwoRows && TwoPanels) _tile_zero(3);
    for (size_t c = 0; c < inputs; c += kTileInputs) {
        _tile_loadd(6, w + c * 16, 64);
        _tile_loadd(4, x + c, d.x_bytes);
        _tile_dpbusd(0, 4, 6);
        if constexpr (TwoPanels) {
            _tile_loadd(7, beside + c * 16, 64);
            _tile_dpbusd(1, 4, 7);
        }
        if constexpr (TwoRows) {
            _tile_loadd(5, below + c, d.x_bytes);
            _tile_dpbusd(2, 5, 6);
            if constexpr (TwoPanels) _tile_dpbusd(3, 5, 7);
        }
    }
    alignas(64) int32_t sums[4][kTileRows * 16];
    _tile_stored(0, sums[0], 64);
    if constexpr (TwoPanels) _tile_stored(1, sums[1], 64);
    if constexpr (TwoRows) _tile_stored(2, sums[2], 64);
    if constexpr (TwoRows && TwoPanels) _tile_stored(3, sums[3], 64);
    leave_tile(d, sums[0], row, panel);
    if constexpr (TwoPanels) leave_tile(d, sums[1], row, panel + 1);
    if constexpr (TwoRows) leave_tile(d, sums[2], row + kTileRows, panel);
    if constexpr (TwoRows && TwoPanels) leave_tile(d, sums[3], row + kTileRows, panel + 1);
}

// All whole tiles of rows of one or two panels; two panels' weights stay in the first cache.
template <bool TwoPanels>
void column_i8(const k::DenseI8 &d, size_t panel) {
    size_t r = 0;
    for (; r + 2 * kTileRows <= d.rows; r += 2 * kTileRows) tiles_i8<true, TwoPanels>(d, r, panel);
    if (r + kTileRows <= d.rows) tiles_i8<false, TwoPanels>(d, r, panel);
}

void dense_i8_amx(const k::DenseI8 &d) {
    if (d.k < kTileInputs || d.rows < kTileRows) {
        dense_i8(d);
        return;
    }
    __asm__ volatile("ldtilecfg %0" : : "m"(kShapes) : "memory");
    const size_t end = d.panel + d.panels;
    size_t p = d.panel;
    for (; p + 2 <= end; p += 2) column_i8<true>(d, p);
    if (p < end) column_i8<false>(d, p);
    _tile_release();
    const size_t left = d.rows / kTileRows * kTileRows;
    for (p = d.panel; left < d.rows && p < end; p += kPanelsI8) {
        rows_i8(d, left, p, end - p < kPanelsI8 ? end - p : kPanelsI8);
    }
}

double peak_i8_amx(size_t rounds) {
    alignas(64) int32_t sums[kTileRows * 16] = {};
    __asm__ volatile("ldtilecfg %0" : : "m"(kShapes) : "memory");
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    _tile_loadd(4, sums, 64);
    _tile_loadd(5, sums, 64);
    _tile_loadd(6, sums, 64);
    _tile_loadd(7, sums, 64);
    for (size_t i = 0; i < rounds; ++i) {
        _tile_dpbusd(0, 4, 6);
        _tile_dpbusd(1, 4, 7);
        _tile_dpbusd(2, 5, 6);
        _tile_dpbusd(3, 5, 7);
    }
    _tile_stored(0, sums, 64);
    _tile_release();
    return (double)rounds * 4 * kTileRows * 16 * kTileInputs;
}

}  // namespace

namespace edge_wm::kernels {

extern const Kernels kAmx;
const Kernels kAmx = {
    "amx",   1,    kTileInputs, kTileRows, packed_i8_bytes, pack_i8, quantize, dense_i8_amx, dense_f32,
    add_row, norm, softmax,     attention,       lstm,    gru,      fold,         unary,
    binary,  select,            peak_i8_amx,
};

}  // namespace edge_wm::kernels
