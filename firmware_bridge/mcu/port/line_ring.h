/* Bytes between an interrupt and the loop: one writer, one reader, neither waits. A ring that is
 * full drops the byte; the frame's CRC then refuses what is left of the frame. */
#ifndef EDGE_WM_LINE_RING_H
#define EDGE_WM_LINE_RING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { LINE_RING = 1024 }; /* ten milliseconds at 1 Mbaud; a power of two */

typedef struct {
    volatile uint32_t written, read; /* bytes ever */
    volatile uint8_t data[LINE_RING];
} line_ring;

static inline size_t line_waiting(const line_ring *ring) {
    const uint32_t written = ring->written;
    return (size_t)(uint32_t)(written - ring->read);
}

static inline size_t line_room(const line_ring *ring) {
    return LINE_RING - line_waiting(ring);
}

static inline void line_put(line_ring *ring, uint8_t byte) {
    if (line_room(ring) > 0) {
        const uint32_t written = ring->written;
        ring->data[written % LINE_RING] = byte;
        ring->written = written + 1U;
    }
}

static inline bool line_take(line_ring *ring, uint8_t *byte) {
    if (line_waiting(ring) == 0) {
        return false;
    }
    const uint32_t read = ring->read;
    *byte = ring->data[read % LINE_RING];
    ring->read = read + 1U;
    return true;
}

#endif
