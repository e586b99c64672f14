#include "flash.h"

#include <string.h>

uint32_t flash_sector(const flash *f, uint32_t offset) {
    uint32_t start = 0;
    for (uint32_t i = 0; i < f->run_count; i++) {
        const uint32_t size = f->runs[i].size;
        const uint32_t length = size * f->runs[i].count;
        if (offset - start < length) {
            return (offset - start) % size == 0 ? size : 0;
        }
        start += length;
    }
    return 0;
}

bool flash_erase(const flash *f, uint32_t offset, uint32_t size) {
    uint32_t done = 0;
    while (done < size) {
        const uint32_t sector = flash_sector(f, offset + done);
        if (sector == 0 || !f->erase(offset + done, sector)) {
            return false;
        }
        done += sector;
    }
    return true;
}

bool flash_is_erased(const uint8_t *bytes, uint32_t length) {
    uint8_t all = 0xFF;
    for (uint32_t i = 0; i < length; i++) {
        all &= bytes[i];
    }
    return all == 0xFF;
}

bool flash_copy(const flash *f, uint32_t from, uint32_t to, uint32_t size) {
    uint8_t source[FLASH_CHUNK], copy[FLASH_CHUNK];
    if (!flash_erase(f, to, size)) {
        return false;
    }
    for (uint32_t at = 0; at < size; at += FLASH_CHUNK) { /* sectors are whole chunks */
        if (!f->read(from + at, source, FLASH_CHUNK)) {
            return false;
        }
        if (!flash_is_erased(source, FLASH_CHUNK) && !f->write(to + at, source, FLASH_CHUNK)) {
            return false;
        }
        if (!f->read(to + at, copy, FLASH_CHUNK) || memcmp(source, copy, FLASH_CHUNK) != 0) {
            return false;
        }
    }
    return true;
}
