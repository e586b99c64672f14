#include "wire.h"

/* Half a byte at a time: a table of 64 bytes, and a fifth of the time of bit by bit. */
static const uint32_t crc_of_nibble[16] = {
    0x00000000u, 0x105ec76fu, 0x20bd8edeu, 0x30e349b1u, 0x417b1dbcu, 0x5125dad3u,
    0x61c69362u, 0x7198540du, 0x82f63b78u, 0x92a8fc17u, 0xa24bb5a6u, 0xb21572c9u,
    0xc38d26c4u, 0xd3d3e1abu, 0xe330a81au, 0xf36e6f75u,
};

uint32_t wire_crc32c(const uint8_t *data, size_t size) {
    uint32_t value = 0xffffffffu;
    for (size_t i = 0; i < size; ++i) {
        value ^= data[i];
        value = (value >> 4) ^ crc_of_nibble[value & 15u];
        value = (value >> 4) ^ crc_of_nibble[value & 15u];
    }
    return value ^ 0xffffffffu;
}

size_t wire_frame(const uint8_t *body, size_t size, uint8_t out[WIRE_MOST_FRAME]) {
    if (size > WIRE_MOST_BODY) return 0;
    const uint32_t crc = wire_crc32c(body, size);
    const size_t total = size + 4u;
    size_t length_at = 1, to = 2; /* where the block's length goes, and the next byte */
    bool open = true;             /* whether a block is begun that has no length yet */
    out[0] = 0;
    for (size_t i = 0; i < total; ++i) {
        const uint8_t byte = i < size ? body[i] : (uint8_t)(crc >> (8u * (uint32_t)(i - size)));
        if (!open) { /* the block before was full: this byte begins another */
            length_at = to++;
            open = true;
        }
        if (byte != 0) {
            out[to++] = byte;
            if (to - length_at == 255u) {
                out[length_at] = 255u;
                open = false;
            }
        } else {
            out[length_at] = (uint8_t)(to - length_at);
            length_at = to++;
        }
    }
    if (open) out[length_at] = (uint8_t)(to - length_at);
    out[to++] = 0;
    return to;
}

/* Takes the stuffing out of parser->held, in place: what is written never overtakes what is read.
 * Returns the size, 0 where it is not COBS. */
static size_t unstuff(struct wire_parser *parser) {
    uint8_t *const data = parser->held;
    const size_t size = parser->size;
    size_t from = 0, to = 0;
    while (from < size) {
        const size_t length = data[from];
        if (length == 0 || from + length > size) return 0;
        for (size_t i = 1; i < length; ++i) data[to++] = data[from + i];
        from += length;
        if (length < 255u && from < size) data[to++] = 0;
    }
    return to;
}

bool wire_take(struct wire_parser *parser, uint8_t byte, size_t *size) {
    if (byte != 0) {
        if (parser->size < WIRE_MOST_STUFFED) {
            parser->held[parser->size++] = byte;
        } else {
            parser->overlong = true;
        }
        return false;
    }
    const bool empty = parser->size == 0;
    const size_t whole = parser->overlong ? 0 : unstuff(parser);
    parser->size = 0;
    parser->overlong = false;
    if (empty) return false; /* the zero that a frame begins with */
    if (whole >= WIRE_HEADER + 4u) {
        const uint8_t *const end = parser->held + whole - 4u;
        const uint32_t crc = (uint32_t)end[0] | (uint32_t)end[1] << 8 | (uint32_t)end[2] << 16 |
                             (uint32_t)end[3] << 24;
        if (wire_crc32c(parser->held, whole - 4u) == crc) {
            ++parser->accepted;
            *size = whole - 4u;
            return true;
        }
    }
    ++parser->damaged;
    return false;
}
