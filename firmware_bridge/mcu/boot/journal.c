#include "journal.h"

#include <string.h>

#include "wire.h"

static uint32_t place_size(const flash *f) {
    return f->write_size > JOURNAL_RECORD ? f->write_size : JOURNAL_RECORD;
}

static uint32_t places(const flash *f) { return f->journal[0].size / place_size(f); }

static uint32_t place_offset(const flash *f, uint32_t sequence) {
    const uint32_t count = places(f);
    return f->journal[sequence / count % 2U].offset + sequence % count * place_size(f);
}

static uint32_t get(const uint8_t *at, uint32_t bytes) {
    uint32_t value = 0;
    for (uint32_t i = 0; i < bytes; i++) {
        value |= (uint32_t)at[i] << 8U * i;
    }
    return value;
}

static void put(uint8_t *at, uint32_t bytes, uint32_t value) {
    for (uint32_t i = 0; i < bytes; i++) {
        at[i] = (uint8_t)(value >> 8U * i);
    }
}

static void encode(uint8_t *record, uint32_t sequence, const journal_entry *entry) {
    memset(record, 0, JOURNAL_RECORD);
    put(&record[0], 4, sequence);
    record[4] = entry->state;
    record[5] = entry->reason;
    record[6] = entry->boots;
    put(&record[8], 2, entry->step);
    put(&record[10], 2, entry->units);
    put(&record[12], 4, entry->floor);
    memcpy(&record[16], entry->image, sizeof(entry->image));
    put(&record[28], 4, wire_crc32c(record, 28));
}

static bool decode(const uint8_t *record, uint32_t *sequence, journal_entry *entry) {
    if (record[4] < STATE_IDLE || record[4] > STATE_REPAIRING || /* also an erased one, quickly */
        get(&record[28], 4) != wire_crc32c(record, 28)) {
        return false;
    }
    *sequence = get(&record[0], 4);
    *entry = (journal_entry){.state = record[4], .reason = record[5], .boots = record[6],
                             .step = (uint16_t)get(&record[8], 2),
                             .units = (uint16_t)get(&record[10], 2),
                             .floor = get(&record[12], 4)};
    memcpy(entry->image, &record[16], sizeof(entry->image));
    return true;
}

/* Do two records say the same? Compared as they are stored, so that padding does not count. */
static bool same(const journal_entry *one, const journal_entry *other) {
    uint8_t a[JOURNAL_RECORD], b[JOURNAL_RECORD];
    encode(a, 0, one);
    encode(b, 0, other);
    return memcmp(a, b, JOURNAL_RECORD) == 0;
}

bool journal_open(journal *j, const flash *f) {
    const uint32_t count = places(f);
    uint32_t second = 0, in_page[2] = {0, 0};
    journal_entry before = {0};
    bool has_second = false;
    *j = (journal){.flash = f, .entry = {.state = STATE_IDLE}};
    for (uint32_t place = 0; place < 2U * count; place++) {
        uint8_t record[JOURNAL_RECORD];
        uint32_t sequence;
        journal_entry entry;
        if (!f->read(place_offset(f, place), record, JOURNAL_RECORD)) {
            return false;
        }
        if (!decode(record, &sequence, &entry) || sequence % (2U * count) != place) {
            continue;
        }
        in_page[place / count]++;
        if (!j->any || sequence > j->newest) {
            second = j->newest;
            before = j->entry;
            has_second = j->any;
            j->newest = sequence;
            j->entry = entry;
            j->any = true;
        } else if (!has_second || sequence > second) {
            second = sequence;
            before = entry;
            has_second = true;
        }
    }
    j->in_page = in_page[j->newest / count % 2U];
    j->agreed = has_second && same(&j->entry, &before);
    return true;
}

static bool write_record(journal *j, uint32_t sequence, const journal_entry *entry) {
    const flash *f = j->flash;
    uint8_t bytes[FLASH_WRITE_MAX];
    memset(bytes, 0xFF, sizeof(bytes));
    encode(bytes, sequence, entry);
    if (!f->write(place_offset(f, sequence), bytes, place_size(f))) {
        return false;
    }
    j->newest = sequence;
    j->entry = *entry;
    j->in_page++;
    return true;
}

/* Erase a page and repeat the newest record in it, twice. */
static bool begin_page(journal *j) {
    const flash *f = j->flash;
    const uint32_t count = places(f), pages_on = j->in_page >= 2U ? 1U : 2U;
    const journal_entry entry = j->entry;
    const uint32_t first = j->any ? (j->newest / count + pages_on) * count : 0;
    const flash_area page = f->journal[first / count % 2U];
    if (!flash_erase(f, page.offset, page.size)) {
        return false;
    }
    j->in_page = 0;
    j->any = true;
    j->writing = true;
    return write_record(j, first, &entry) && write_record(j, first + 1U, &entry);
}

bool journal_append(journal *j, const journal_entry *entry) {
    const bool page_ends = (j->newest + 1U) % places(j->flash) == 0;
    if ((!j->writing || page_ends) && !begin_page(j)) {
        return false;
    }
    return write_record(j, j->newest + 1U, entry);
}

bool journal_firm(journal *j) {
    const bool rests = !j->any || (j->agreed && j->entry.state == STATE_IDLE);
    return rests || begin_page(j);
}
