/* Flash as the updater sees it: a table that a port fills, and three functions.
 *
 *     runs       what can be erased at once: 4 kB everywhere, or 16/64/128 kB (STM32F405)
 *     write_size what can be programmed at once: 4 bytes (STM32F405), 256 bytes (RP2040)
 *     slot[0]    the image that runs        slot[1]  the one that waits, or the one before
 *     scratch    holds a piece while the two change places
 *     journal    two pages, written in turn
 *
 * Offsets count from the flash's first byte; erased bytes read 0xFF; a piece that was programmed is
 * not programmed again before it is erased. Every function feeds the watchdog, where there is one. */
#ifndef EDGE_WM_FLASH_H
#define EDGE_WM_FLASH_H

#include <stdbool.h>
#include <stdint.h>

enum { FLASH_WRITE_MAX = 256, FLASH_CHUNK = 256 };

typedef struct {
    uint32_t size;  /* of one sector, bytes */
    uint32_t count; /* sectors one after another */
} flash_run;

typedef struct {
    uint32_t offset, size; /* both at sectors' borders */
} flash_area;

typedef struct {
    const flash_run *runs;
    uint32_t run_count;
    uint32_t write_size; /* a power of two, at most FLASH_WRITE_MAX */
    flash_area slot[2];  /* of equal size */
    flash_area scratch;  /* no smaller than the largest unit of boot.c */
    flash_area journal[2];
    bool (*read)(uint32_t offset, uint8_t *to, uint32_t length);
    bool (*write)(uint32_t offset, const uint8_t *from, uint32_t length); /* whole write_sizes */
    bool (*erase)(uint32_t offset, uint32_t length);                      /* one sector */
} flash;

/* The size of the sector that begins at `offset`; 0 if none does. */
uint32_t flash_sector(const flash *f, uint32_t offset);

/* Erase the sectors of offset .. offset + size. */
bool flash_erase(const flash *f, uint32_t offset, uint32_t size);

/* Erase `to`, copy `size` bytes from `from`, and compare. */
bool flash_copy(const flash *f, uint32_t from, uint32_t to, uint32_t size);

bool flash_is_erased(const uint8_t *bytes, uint32_t length);

#endif
