#include "wire.h"

uint32_t wire_crc32c(const uint8_t *data, size_t length) {
    /* One nibble at a time: 64 bytes of table, and fast enough for 1 Mbaud on a Cortex-M4. */
    static const uint32_t table[16] = {
        0x00000000U, 0x105EC76FU, 0x20BD8EDEU, 0x30E349B1U, 0x417B1DBCU, 0x5125DAD3U,
        0x61C69362U, 0x7198540DU, 0x82F63B78U, 0x92A8FC17U, 0xA24BB5A6U, 0xB21572C9U,
        0xC38D26C4U, 0xD3D3E1ABU, 0xE330A81AU, 0xF36E6F75U};
    uint32_t crc = 0xFFFFFFFFU;
    for (size_t i = 0; i < length; i++) {
        crc ^= data[i];
        crc = (crc >> 4) ^ table[crc & 0xFU];
        crc = (crc >> 4) ^ table[crc & 0xFU];
    }
    return crc ^ 0xFFFFFFFFU;
}

static uint32_t read_u32(const uint8_t *at) {
    return (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

static void put(wire_parser *parser, uint8_t byte) {
    if (parser->length < WIRE_RAW_MAX) {
        parser->raw[parser->length] = byte;
        parser->length++;
    } else {
        parser->damaged = true;
    }
}

/* The frame's border has come: is what lies before it a whole frame? */
static bool finish(wire_parser *parser) {
    bool intact = false;
    if (parser->begun) {
        intact = !parser->damaged && parser->left == 0 && parser->length >= WIRE_HEADER + WIRE_CRC;
        if (intact) {
            const size_t body = (size_t)parser->length - WIRE_CRC;
            intact = wire_crc32c(parser->raw, body) == read_u32(&parser->raw[body]);
        }
        if (!intact) {
            parser->frames_damaged++;
        }
    }
    parser->begun = false;
    parser->damaged = false;
    parser->zero_due = false;
    parser->left = 0;
    return intact;
}

bool wire_feed(wire_parser *parser, uint8_t byte) {
    if (byte == 0) {
        return finish(parser);
    }
    if (!parser->begun) {
        parser->begun = true;
        parser->length = 0;
    }
    if (parser->damaged) {
        return false;
    }
    if (parser->left > 0) {
        put(parser, byte);
        parser->left--;
        return false;
    }
    if (parser->zero_due) {
        put(parser, 0);
    }
    parser->left = (uint8_t)(byte - 1U);
    parser->zero_due = byte != 0xFFU;
    return false;
}

size_t wire_encode(uint8_t *raw, size_t length, uint8_t *out) {
    const uint32_t crc = wire_crc32c(raw, length);
    for (size_t i = 0; i < WIRE_CRC; i++) {
        raw[length + i] = (uint8_t)(crc >> (8U * i));
    }
    const size_t end = length + WIRE_CRC;
    size_t at = 2;
    size_t code_at = 1;
    uint8_t code = 1;
    out[0] = 0;
    for (size_t i = 0; i < end; i++) {
        if (raw[i] != 0) {
            out[at] = raw[i];
            at++;
            code++;
        }
        /* A full block at the very end needs no successor. */
        if (raw[i] == 0 || (code == 0xFFU && i + 1 < end)) {
            out[code_at] = code;
            code_at = at;
            at++;
            code = 1;
        }
    }
    out[code_at] = code;
    out[at] = 0;
    return at + 1;
}
