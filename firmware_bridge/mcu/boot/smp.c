#include "smp.h"

#include <string.h>

#include "bearssl_hash.h"

enum { OUTSIDE, FRAME_BEGUN, FRAME, FIRST_MARK, NEXT_MARK, LINE }; /* smp_server.where */
enum { HEADER = 8, LETTERS = 120, DEPTH_MAX = 4 };
enum { FRAME_MAX = 300 }; /* longer than any frame of the link */
enum { OP_READ = 0, OP_WRITE = 2, GROUP_OS = 0, GROUP_IMAGE = 1 };
enum { OS_ECHO = 0, OS_RESET = 5, OS_PARAMETERS = 6, OS_INFORMATION = 7 };
enum { IMAGE_STATE = 0, IMAGE_UPLOAD = 1, IMAGE_ERASE = 5 };
/* mcumgr's general errors. */
enum { E_UNKNOWN = 1, E_INVALID = 3, E_NO_ENTRY = 5, E_BAD_STATE = 6, E_UNSUPPORTED = 8,
       E_CORRUPT = 9, E_BUSY = 10 };

/* ---- CBOR in: a map of texts to what a request may hold (RFC 8949) ------------------------------*/
typedef struct {
    const uint8_t *at;
    uint32_t left;
    bool bad;
} reader;

typedef struct {
    const uint8_t *bytes; /* NULL: not there */
    uint32_t length;
} span;

typedef struct {
    span data, sha, hash, echo;
    uint32_t offset, length, slot;
    bool has_offset, has_length, confirm;
} request;

static uint32_t take_head(reader *r, uint32_t *major) {
    if (r->left == 0) {
        r->bad = true;
        *major = 0;
        return 0;
    }
    const uint32_t first = *r->at, detail = first & 0x1FU;
    *major = first >> 5;
    r->at++;
    r->left--;
    if (detail < 24U) {
        return detail;
    }
    const uint32_t size = 1U << (detail - 24U);
    if (detail > 26U || size > r->left) { /* 64-bit and indefinite lengths are nobody's here */
        r->bad = true;
        return 0;
    }
    uint32_t value = 0;
    for (uint32_t i = 0; i < size; i++) {
        value = value << 8 | r->at[i];
    }
    r->at += size;
    r->left -= size;
    return value;
}

static span take_span(reader *r, uint32_t length) {
    if (r->bad || length > r->left) {
        r->bad = true;
        return (span){NULL, 0};
    }
    const span s = {r->at, length};
    r->at += length;
    r->left -= length;
    return s;
}

/* One value that nobody asked for. */
static void skip(reader *r, uint32_t depth) {
    uint32_t major;
    const uint32_t value = take_head(r, &major);
    if (depth == DEPTH_MAX) {
        r->bad = true;
    }
    if (major == 2U || major == 3U) {
        (void)take_span(r, value);
    } else if (major == 4U || major == 5U) {
        const uint32_t count = major == 5U ? 2U : 1U;
        for (uint32_t i = 0; i < value && !r->bad; i++) {
            for (uint32_t j = 0; j < count; j++) {
                skip(r, depth + 1U);
            }
        }
    } else if (major == 6U) {
        r->bad = true;
    }
}

static bool is(span key, const char *name) {
    return key.length == strlen(name) && memcmp(key.bytes, name, key.length) == 0;
}

static span take_bytes(reader *r, uint32_t wanted) {
    uint32_t major;
    const uint32_t length = take_head(r, &major);
    if (major != wanted) {
        r->bad = true;
    }
    return take_span(r, length);
}

static uint32_t take_number(reader *r) {
    uint32_t major;
    const uint32_t value = take_head(r, &major);
    if (major != 0U) {
        r->bad = true;
    }
    return value;
}

static bool is_null(const reader *r) { return r->left > 0 && *r->at == 0xF6U; }

static bool take_map(const uint8_t *bytes, uint32_t length, request *q) {
    reader r = {bytes, length, false};
    uint32_t major;
    *q = (request){.slot = 1};
    const uint32_t pairs = take_head(&r, &major);
    if (major != 5U) {
        return false;
    }
    for (uint32_t i = 0; i < pairs && !r.bad; i++) {
        const span key = take_bytes(&r, 3);
        if (r.bad) {
            return false;
        }
        if (is_null(&r)) {
            skip(&r, 0);
        } else if (is(key, "off")) {
            q->offset = take_number(&r);
            q->has_offset = true;
        } else if (is(key, "len")) {
            q->length = take_number(&r);
            q->has_length = true;
        } else if (is(key, "slot")) {
            q->slot = take_number(&r);
        } else if (is(key, "data")) {
            q->data = take_bytes(&r, 2);
        } else if (is(key, "sha")) {
            q->sha = take_bytes(&r, 2);
        } else if (is(key, "hash")) {
            q->hash = take_bytes(&r, 2);
        } else if (is(key, "d")) {
            q->echo = take_bytes(&r, 3);
        } else if (is(key, "confirm")) {
            const uint32_t value = take_head(&r, &major);
            r.bad = r.bad || major != 7U || (value != 20U && value != 21U);
            q->confirm = value == 21U;
        } else {
            skip(&r, 0);
        }
    }
    return !r.bad;
}

/* ---- CBOR out -----------------------------------------------------------------------------------*/
typedef struct {
    uint8_t bytes[SMP_MESSAGE];
    uint32_t length;
} writer; /* what does not fit is left out; only an echo could be too long, and is not */

static void put_raw(writer *w, const void *bytes, uint32_t length) {
    if (length <= sizeof(w->bytes) - w->length) {
        memcpy(&w->bytes[w->length], bytes, length);
        w->length += length;
    }
}

static void put_head(writer *w, uint32_t major, uint32_t value) {
    uint8_t head[5] = {(uint8_t)(major << 5)};
    uint32_t size = 0;
    if (value < 24U) {
        head[0] = (uint8_t)(head[0] | value);
    } else {
        size = value < 0x100U ? 1U : value < 0x10000U ? 2U : 4U;
        head[0] = (uint8_t)(head[0] | (size == 1U ? 24U : size == 2U ? 25U : 26U));
        for (uint32_t i = 0; i < size; i++) {
            head[1U + i] = (uint8_t)(value >> 8U * (size - 1U - i));
        }
    }
    put_raw(w, head, 1U + size);
}

static void put_text(writer *w, const char *text) {
    const uint32_t length = (uint32_t)strlen(text);
    put_head(w, 3, length);
    put_raw(w, text, length);
}

static void put_number(writer *w, const char *key, uint32_t value) {
    put_text(w, key);
    put_head(w, 0, value);
}

static void put_bool(writer *w, const char *key, bool value) {
    put_text(w, key);
    put_head(w, 7, value ? 21U : 20U);
}

static void refuse(writer *w, uint32_t code, const char *reason) {
    w->length = HEADER;
    put_head(w, 5, 2);
    put_number(w, "rc", code);
    put_text(w, "rsn");
    put_text(w, reason);
}

/* ---- images -------------------------------------------------------------------------------------*/
static const char *const REFUSALS[] = {
    "good", "no image in the slot", "the image's header is wrong", "the image is too large",
    "the image is truncated", "a TLV of the image is wrong or unknown", "the image has no hash",
    "the image is damaged: its hash is wrong", "the image is not signed",
    "the image is signed with a key that this board does not have",
    "the image's signature is wrong", "the image does not say for which hardware it is",
    "the image is for other hardware", "the image has no security counter",
    "the image is older than this board allows: its security counter is below the floor",
    "the flash does not answer"};

/* Decimal digits of one number. */
static uint32_t put_digits(char *to, uint32_t value) {
    char digits[10];
    uint32_t count = 0, length = 0;
    do {
        digits[count] = (char)('0' + value % 10U);
        count++;
        value /= 10U;
    } while (value != 0);
    while (count > 0) {
        count--;
        to[length] = digits[count];
        length++;
    }
    return length;
}

/* Hardware, marks, the counter's floor, and what became of the last update (boot_reason), in words. */
static void put_information(const smp_server *s, writer *w) {
    static const char *const reasons[] = {
        "kept", "taken back: it was not confirmed before a reset",
        "taken back: the watchdog, or a crash, ended its trial",
        "the image that ran was damaged; the other one took its place"};
    const uint32_t reason = s->boot->journal.entry.reason;
    const char *text = reason <= BOOT_REPAIRED ? reasons[reason]
                       : reason >= BOOT_REFUSED && reason <= BOOT_REFUSED + (uint32_t)IMAGE_UNREADABLE
                           ? REFUSALS[reason - BOOT_REFUSED] : "?";
    char floor[12];
    floor[put_digits(floor, s->boot->journal.entry.floor)] = 0;
    const char *const developer = s->boot->policy->developer ? "; developer keys" : "";
    const char *const parts[] = {s->boot->policy->hardware, developer, "; counter floor ", floor,
                                 "; last update: ", text};
    const uint32_t count = sizeof(parts) / sizeof(parts[0]);
    uint32_t length = 0;
    for (uint32_t i = 0; i < count; i++) {
        length += (uint32_t)strlen(parts[i]);
    }
    put_head(w, 5, 1);
    put_text(w, "output");
    put_head(w, 3, length);
    for (uint32_t i = 0; i < count; i++) {
        put_raw(w, parts[i], (uint32_t)strlen(parts[i]));
    }
}

static void refuse_image(writer *w, image_result result) {
    refuse(w, result == IMAGE_NONE ? E_NO_ENTRY : E_CORRUPT, REFUSALS[result]);
}

static void put_version(writer *w, const image_info *info) {
    char text[48];
    uint32_t length = put_digits(text, info->version_major);
    const uint32_t more[3] = {info->version_minor, info->version_revision, info->version_build};
    const uint32_t count = info->version_build != 0 ? 3 : 2;
    for (uint32_t i = 0; i < count; i++) {
        text[length] = '.';
        length++;
        length += put_digits(&text[length], more[i]);
    }
    text[length] = 0;
    put_text(w, "version");
    put_text(w, text);
}

static void put_states(smp_server *s, writer *w) {
    const boot *b = s->boot;
    const uint8_t state = b->journal.entry.state;
    image_info info[2];
    bool there[2];
    for (uint32_t slot = 0; slot < 2; slot++) {
        there[slot] = image_read(b->flash, b->flash->slot[slot], &info[slot]) == IMAGE_GOOD;
    }
    put_head(w, 5, 2);
    put_text(w, "images");
    put_head(w, 4, (uint32_t)there[0] + (uint32_t)there[1]);
    for (uint32_t slot = 0; slot < 2; slot++) {
        if (!there[slot]) {
            continue;
        }
        put_head(w, 5, 8);
        put_number(w, "slot", slot);
        put_version(w, &info[slot]);
        put_text(w, "hash");
        put_head(w, 2, info[slot].hash_size);
        put_raw(w, info[slot].hash, info[slot].hash_size);
        put_bool(w, "bootable", true);
        put_bool(w, "pending", slot == 1 && state == STATE_REQUESTED);
        put_bool(w, "confirmed", slot == 0 ? state != STATE_TRIAL : state == STATE_TRIAL);
        put_bool(w, "active", slot == 0);
        put_bool(w, "permanent", false);
    }
    put_number(w, "splitStatus", 0);
}

static bool names(const boot *b, uint32_t slot, span hash) {
    image_info info;
    return image_read(b->flash, b->flash->slot[slot], &info) == IMAGE_GOOD &&
           info.hash_size == hash.length && memcmp(info.hash, hash.bytes, hash.length) == 0;
}

static void set_state(smp_server *s, const request *q, writer *w) {
    boot *b = s->boot;
    boot_answer answer;
    if (q->confirm) {
        if (q->hash.bytes != NULL && !names(b, 0, q->hash)) {
            refuse(w, E_BAD_STATE, "only the image that runs can be confirmed: test it first");
            return;
        }
        answer = boot_confirm(b);
    } else {
        if (q->hash.bytes == NULL || !names(b, 1, q->hash)) {
            refuse(w, E_NO_ENTRY, "no image in slot 1 has this hash");
            return;
        }
        answer = boot_request(b);
    }
    switch (answer) {
    case BOOT_DONE:
        put_states(s, w);
        break;
    case BOOT_BUSY:
        refuse(w, E_BUSY, "an image is on trial: confirm it, or reset to take it back");
        break;
    case BOOT_BAD_IMAGE:
        refuse_image(w, b->refused);
        break;
    default:
        refuse(w, E_UNKNOWN, "the flash failed");
        break;
    }
}

/* ---- upload -------------------------------------------------------------------------------------*/
static flash_area upload_slot(const smp_server *s) { return s->boot->flash->slot[1]; }

/* The sectors of slot 1 that hold its first `length` bytes, from the one at `from` on. */
static bool clear(smp_server *s, uint32_t from, uint32_t length) {
    const flash *f = s->boot->flash;
    while (from < length) {
        const uint32_t sector = flash_sector(f, upload_slot(s).offset + from);
        if (sector == 0 || !flash_erase(f, upload_slot(s).offset + from, sector)) {
            return false;
        }
        from += sector;
    }
    return true;
}

/* Did an upload of the same image end here by a reset? Then the start of the last sector that was
 * written, else 0. The hash at the end is what decides whether that was right. */
static uint32_t find_resume(const smp_server *s, const request *q) {
    const flash *f = s->boot->flash;
    const uint32_t slot = upload_slot(s).offset;
    uint8_t bytes[FLASH_CHUNK];
    if (q->data.length < FLASH_CHUNK || !f->read(slot, bytes, FLASH_CHUNK) ||
        memcmp(bytes, q->data.bytes, FLASH_CHUNK) != 0) {
        return 0;
    }
    uint32_t written = 0, start = 0;
    while (start < q->length) {
        const uint32_t sector = flash_sector(f, slot + start);
        for (uint32_t at = start; at < start + sector && at < q->length; at += FLASH_CHUNK) {
            if (!f->read(slot + at, bytes, FLASH_CHUNK)) {
                return 0;
            }
            if (!flash_is_erased(bytes, FLASH_CHUNK)) {
                written = start;
            }
        }
        if (sector == 0) {
            return 0;
        }
        start += sector;
    }
    return written;
}

static bool begin_upload(smp_server *s, const request *q, writer *w) {
    if (!boot_may_write(s->boot)) {
        refuse(w, E_BUSY, "slot 1 is in use: an image waits for a reset or is on trial");
        return false;
    }
    if (!q->has_length || q->length == 0 || (q->sha.bytes != NULL && q->sha.length != 32U)) {
        refuse(w, E_INVALID, "the first part must say the image's length");
        return false;
    }
    if (q->length > upload_slot(s).size) {
        refuse(w, E_INVALID, REFUSALS[IMAGE_TOO_LARGE]);
        return false;
    }
    const bool same = q->sha.bytes != NULL && s->has_sha && s->upload_length == q->length &&
                      memcmp(s->sha, q->sha.bytes, 32) == 0;
    if (s->uploading && same) {
        return true;
    }
    s->upload_offset = q->sha.bytes != NULL ? find_resume(s, q) : 0;
    if (!clear(s, s->upload_offset, q->length)) {
        refuse(w, E_UNKNOWN, "the flash could not be erased");
        return false;
    }
    s->uploading = true;
    s->upload_length = q->length;
    s->has_sha = q->sha.bytes != NULL;
    if (s->has_sha) {
        memcpy(s->sha, q->sha.bytes, 32);
    }
    return true;
}

/* Take bytes in; whole pages go to the flash, and so does the last one. */
static bool store(smp_server *s, const span data) {
    const flash *f = s->boot->flash;
    for (uint32_t i = 0; i < data.length; i++) {
        const uint32_t in_page = s->upload_offset % FLASH_WRITE_MAX;
        if (in_page == 0) {
            memset(s->page, 0xFF, sizeof(s->page));
        }
        s->page[in_page] = data.bytes[i];
        s->upload_offset++;
        const bool whole = in_page == FLASH_WRITE_MAX - 1U || s->upload_offset == s->upload_length;
        const uint32_t at = upload_slot(s).offset + s->upload_offset - in_page - 1U;
        if (whole && !flash_is_erased(s->page, FLASH_WRITE_MAX) &&
            !f->write(at, s->page, FLASH_WRITE_MAX)) {
            return false;
        }
    }
    return true;
}

/* Does slot 1 hold what was announced? Read from the flash, not from what came in. */
static bool upload_holds(const smp_server *s) {
    const flash *f = s->boot->flash;
    br_sha256_context h;
    uint8_t bytes[FLASH_CHUNK], digest[32];
    br_sha256_init(&h);
    for (uint32_t at = 0; at < s->upload_length; at += FLASH_CHUNK) {
        const uint32_t left = s->upload_length - at;
        if (!f->read(upload_slot(s).offset + at, bytes, FLASH_CHUNK)) {
            return false;
        }
        br_sha256_update(&h, bytes, left < FLASH_CHUNK ? left : FLASH_CHUNK);
    }
    br_sha256_out(&h, digest);
    return memcmp(digest, s->sha, sizeof(digest)) == 0;
}

static void upload(smp_server *s, const request *q, writer *w) {
    if (!q->has_offset || q->data.bytes == NULL) {
        refuse(w, E_INVALID, "an upload must have off and data");
        return;
    }
    if (q->offset == 0 && !begin_upload(s, q, w)) {
        return;
    }
    /* The last part once more, because its answer was lost. */
    bool ended = !s->uploading && s->upload_length != 0 && s->upload_offset == s->upload_length &&
                 q->data.length <= s->upload_length &&
                 q->offset == s->upload_length - q->data.length;
    if (!s->uploading && !ended) {
        refuse(w, E_BAD_STATE, "no upload is under way: begin at offset 0");
        return;
    }
    if (!ended && q->offset == s->upload_offset) { /* else: the answer says what is wanted */
        if (q->data.length > s->upload_length - s->upload_offset) {
            refuse(w, E_INVALID, "more data than the image's length");
            return;
        }
        if (!store(s, q->data)) {
            s->uploading = false;
            refuse(w, E_UNKNOWN, "the flash could not be written");
            return;
        }
        ended = s->upload_offset == s->upload_length;
    }
    put_head(w, 5, ended && s->has_sha ? 2U : 1U);
    put_number(w, "off", s->upload_offset);
    if (ended) {
        s->uploading = false;
        if (s->has_sha) {
            const bool match = upload_holds(s);
            put_bool(w, "match", match);
            if (!match) { /* so that the next attempt begins at 0 */
                (void)clear(s, 0, 1);
                s->upload_length = 0;
            }
        }
    }
}

/* ---- one message --------------------------------------------------------------------------------*/
static void serve(smp_server *s, uint32_t op, uint32_t group, uint32_t command, const request *q,
                  writer *w) {
    const bool write = op == OP_WRITE;
    if (s->armed) {
        refuse(w, E_BUSY, "the robot is armed: disarm it first");
    } else if (group == GROUP_OS && command == OS_ECHO && write && q->echo.bytes != NULL &&
               q->echo.length < SMP_MESSAGE - 32U) {
        put_head(w, 5, 1);
        put_text(w, "r");
        put_head(w, 3, q->echo.length);
        put_raw(w, q->echo.bytes, q->echo.length);
    } else if (group == GROUP_OS && command == OS_RESET && write) {
        s->reset_wanted = true;
        put_head(w, 5, 0);
    } else if (group == GROUP_OS && command == OS_PARAMETERS && !write) {
        put_head(w, 5, 2);
        put_number(w, "buf_size", SMP_FRAME);
        put_number(w, "buf_count", 1);
    } else if (group == GROUP_OS && command == OS_INFORMATION && !write) {
        put_information(s, w);
    } else if (group == GROUP_IMAGE && command == IMAGE_STATE && write) {
        set_state(s, q, w);
    } else if (group == GROUP_IMAGE && command == IMAGE_STATE) {
        put_states(s, w);
    } else if (group == GROUP_IMAGE && command == IMAGE_UPLOAD && write) {
        upload(s, q, w);
    } else if (group == GROUP_IMAGE && command == IMAGE_ERASE && write) {
        if (!boot_may_write(s->boot) || q->slot != 1U) {
            refuse(w, E_BUSY, "only slot 1 can be erased, and not while it is in use");
        } else if (!clear(s, 0, upload_slot(s).size)) {
            refuse(w, E_UNKNOWN, "the flash could not be erased");
        } else {
            s->uploading = false;
            s->upload_length = 0;
            put_head(w, 5, 0);
        }
    } else {
        refuse(w, E_UNSUPPORTED, "this board does not know that request");
    }
}

static uint16_t crc16(const uint8_t *bytes, uint32_t length) { /* XMODEM: 0x1021, from 0 */
    uint32_t crc = 0;
    for (uint32_t i = 0; i < length; i++) {
        crc ^= (uint32_t)bytes[i] << 8;
        for (uint32_t bit = 0; bit < 8; bit++) {
            crc = (crc & 0x8000U) != 0 ? crc << 1 ^ 0x1021U : crc << 1;
        }
    }
    return (uint16_t)crc;
}

/* The frame as lines of base64. */
static void put_lines(smp_server *s, const uint8_t *frame, uint32_t length) {
    static const char letters[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    uint32_t at = 0, in_line = 0;
    for (uint32_t i = 0; i < length; i += 3) {
        if (in_line == 0) {
            s->lines[at] = i == 0 ? 0x06 : 0x04;
            s->lines[at + 1U] = i == 0 ? 0x09 : 0x14;
            at += 2;
        }
        const uint32_t left = length - i;
        const uint32_t bits = (uint32_t)frame[i] << 16 |
                              (left > 1U ? (uint32_t)frame[i + 1U] << 8 : 0U) |
                              (left > 2U ? (uint32_t)frame[i + 2U] : 0U);
        s->lines[at] = (uint8_t)letters[bits >> 18];
        s->lines[at + 1U] = (uint8_t)letters[bits >> 12 & 63U];
        s->lines[at + 2U] = left > 1U ? (uint8_t)letters[bits >> 6 & 63U] : '=';
        s->lines[at + 3U] = left > 2U ? (uint8_t)letters[bits & 63U] : '=';
        at += 4;
        in_line += 4;
        if (in_line == LETTERS || i + 3U >= length) {
            s->lines[at] = '\n';
            at++;
            in_line = 0;
        }
    }
    s->lines_length = at;
    s->lines_sent = 0;
}

/* A whole frame lies in `in`: length, message, CRC. */
static void hear(smp_server *s) {
    const uint8_t *message = &s->in[2];
    const uint32_t length = s->in_length - 4U;
    const uint32_t said = (uint32_t)s->in[s->in_length - 2U] << 8 | s->in[s->in_length - 1U];
    if (length < HEADER || crc16(message, length) != said ||
        ((uint32_t)message[2] << 8 | message[3]) != length - HEADER) {
        return; /* damaged: whoever asked asks again */
    }
    const uint32_t op = message[0] & 7U;
    if (op != OP_READ && op != OP_WRITE) {
        return;
    }
    uint8_t frame[SMP_FRAME];
    writer w = {.length = HEADER};
    request q;
    if (take_map(&message[HEADER], length - HEADER, &q)) {
        serve(s, op, (uint32_t)message[4] << 8 | message[5], message[7], &q, &w);
    } else {
        refuse(&w, E_INVALID, "the request is not a CBOR map of known types");
    }
    memcpy(w.bytes, message, HEADER);
    w.bytes[0] = (uint8_t)(message[0] + 1U); /* the answer to this op; same version */
    w.bytes[2] = (uint8_t)((w.length - HEADER) >> 8);
    w.bytes[3] = (uint8_t)(w.length - HEADER);
    const uint16_t crc = crc16(w.bytes, w.length);
    frame[0] = (uint8_t)((w.length + 2U) >> 8);
    frame[1] = (uint8_t)(w.length + 2U);
    memcpy(&frame[2], w.bytes, w.length);
    frame[w.length + 2U] = (uint8_t)(crc >> 8);
    frame[w.length + 3U] = (uint8_t)crc;
    put_lines(s, frame, w.length + 4U);
}

/* ---- the wire -----------------------------------------------------------------------------------*/
static int32_t base64_value(uint8_t letter) {
    return letter >= 'A' && letter <= 'Z'   ? letter - 'A'
           : letter >= 'a' && letter <= 'z' ? letter - 'a' + 26
           : letter >= '0' && letter <= '9' ? letter - '0' + 52
           : letter == '+'                  ? 62
           : letter == '/'                  ? 63 : -1;
}

/* A letter of a line; false if it is none, or the frame grows too long. */
static bool take_letter(smp_server *s, uint8_t letter) {
    const int32_t value = letter == '=' ? 0 : base64_value(letter);
    if (value < 0) {
        return false;
    }
    s->base64 = s->base64 << 6 | (uint32_t)value;
    s->base64_count++;
    if (s->base64_count % 4U != 0) {
        return true;
    }
    for (uint32_t i = 0; i < 3; i++) {
        if (s->in_length < SMP_FRAME) {
            s->in[s->in_length] = (uint8_t)(s->base64 >> (16U - 8U * i));
            s->in_length++;
        }
    }
    return s->base64_count <= SMP_LINES;
}

static void end_line(smp_server *s) {
    if (s->in_length < 4U) {
        return;
    }
    const uint32_t wanted = ((uint32_t)s->in[0] << 8 | s->in[1]) + 2U;
    if (wanted < 4U + HEADER || wanted > SMP_FRAME) {
        s->in_length = 0;
    } else if (s->in_length >= wanted) { /* base64 may have padded it */
        s->in_length = wanted;
        hear(s);
        s->in_length = 0;
    }
}

/* Where the stream goes on after a byte that began neither a line nor went on with one. */
static uint8_t elsewhere(uint8_t byte) {
    return byte == 0 ? FRAME_BEGUN : byte == 0x06 ? FIRST_MARK : byte == 0x04 ? NEXT_MARK : OUTSIDE;
}

bool smp_receive(smp_server *s, uint8_t byte) {
    switch (s->where) {
    case OUTSIDE:
        s->where = elsewhere(byte);
        return byte == 0x06 || byte == 0x04;
    case FRAME_BEGUN:
        /* No frame of the link begins with 06 09: its first byte is the protocol's version. */
        s->where = byte == 0 ? FRAME_BEGUN : byte == 0x06 ? FIRST_MARK : FRAME;
        s->frame_bytes = 0;
        return false;
    case FRAME:
        s->frame_bytes++;
        s->where = byte == 0 || s->frame_bytes > FRAME_MAX ? OUTSIDE : FRAME;
        return false;
    case FIRST_MARK:
    case NEXT_MARK:
        if (byte != (s->where == FIRST_MARK ? 0x09 : 0x14)) {
            s->where = byte == 0 ? FRAME_BEGUN : FRAME;
            s->frame_bytes = 0;
            return false;
        }
        if (s->where == FIRST_MARK) {
            s->in_length = 0;
        }
        s->base64_count = 0;
        s->where = LINE;
        return true;
    default:
        if (byte == '\n') {
            s->where = OUTSIDE;
            end_line(s);
        } else if (byte != '\r' && !take_letter(s, byte)) {
            s->in_length = 0;
            s->where = elsewhere(byte);
            return byte == 0x06 || byte == 0x04;
        }
        return true;
    }
}

bool smp_between(const smp_server *s) { return s->where == OUTSIDE; }

void smp_init(smp_server *s, boot *b) {
    memset(s, 0, sizeof(*s));
    s->boot = b;
}

size_t smp_pending(const smp_server *s) { return s->lines_length - s->lines_sent; }

size_t smp_transmit(smp_server *s, uint8_t *out, size_t room) {
    const size_t left = smp_pending(s), length = left < room ? left : room;
    memcpy(out, &s->lines[s->lines_sent], length);
    s->lines_sent += (uint32_t)length;
    return length;
}
