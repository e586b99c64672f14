/* Frames, as the host's firmware_bridge/wire.py speaks them:
 *
 *     00 | COBS( header 22 B | payload | CRC-32C 4 B, little-endian ) | 00
 *
 * The invariant: what wire_feed gives out has passed COBS, length and CRC; everything else is
 * counted and gone, and costs at most the frame that follows it. */
#ifndef EDGE_WM_WIRE_H
#define EDGE_WM_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    WIRE_HEADER = 22,
    WIRE_CRC = 4,
    WIRE_PAYLOAD_MAX = 237,                                      /* LimitsReply */
    WIRE_RAW_MAX = WIRE_HEADER + WIRE_PAYLOAD_MAX + WIRE_CRC,    /* 263 */
    WIRE_ENCODED_MAX = WIRE_RAW_MAX + WIRE_RAW_MAX / 254 + 1 + 2 /* with both 00 */
};

typedef struct {
    uint8_t raw[WIRE_RAW_MAX]; /* decoded so far: header, payload, CRC */
    uint16_t length;           /* bytes in raw */
    uint8_t left;              /* bytes left of the COBS block */
    bool zero_due;             /* the block ends in a 00 unless the frame does */
    bool damaged;              /* skip to the next 00 */
    bool begun;                /* bytes since the last 00 */
    uint32_t frames_damaged;
} wire_parser;

/* CRC-32C (Castagnoli; RFC 3720, appendix B.4). */
uint32_t wire_crc32c(const uint8_t *data, size_t length);

/* One byte in; true if it ended an intact frame, which then lies in raw[0 .. length - 5]. */
bool wire_feed(wire_parser *parser, uint8_t byte);

/* Append the CRC to raw (length bytes of header and payload; WIRE_RAW_MAX of room) and write the
 * frame with both borders to out (WIRE_ENCODED_MAX of room); returns its length. */
size_t wire_encode(uint8_t *raw, size_t length, uint8_t *out);

#endif
