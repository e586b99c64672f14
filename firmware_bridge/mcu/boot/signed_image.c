#include "signed_image.h"

#include <string.h>

#include "bearssl_hash.h"
#include "monocypher.h"

enum {
    TLV_KEY_HASH = 0x01,
    TLV_SHA256 = 0x10,
    TLV_SHA512 = 0x12,
    TLV_ED25519 = 0x24,
    TLV_COUNTER = 0x50,
    TLV_HARDWARE = 0xA0,
    TLV_MAGIC = 0x6907,
    TLV_PROTECTED_MAGIC = 0x6908,
    HEADER_SIZE_MAX = 0x2000,
    TLVS_MAX = 64
};
static const uint32_t HEADER_MAGIC = 0x96F3B83DU;

/* What an Ed25519 public key looks like to imgtool, which hashes it (RFC 8410, section 4). */
static const uint8_t KEY_PREFIX[12] = {0x30, 0x2A, 0x30, 0x05, 0x06, 0x03,
                                       0x2B, 0x65, 0x70, 0x03, 0x21, 0x00};

typedef struct {
    bool key_hash, signature, hash, counter, hardware; /* is it there? */
    uint8_t key_hash_bytes[IMAGE_HASH_MAX];
    uint32_t key_hash_size;
    uint8_t signature_bytes[64];
    uint8_t hardware_bytes[IMAGE_HARDWARE_MAX];
    uint32_t hardware_size;
} tlvs;

static uint32_t get(const uint8_t *at, uint32_t bytes) {
    uint32_t value = 0;
    for (uint32_t i = 0; i < bytes; i++) {
        value |= (uint32_t)at[i] << 8U * i;
    }
    return value;
}

/* ---- layout -----------------------------------------------------------------------------------*/

/* Where things lie; nothing of it is believed before the hash is. */
typedef struct {
    uint32_t body_end, protected_size, tlv_end;
} layout;

static image_result read_header(const flash *f, flash_area area, image_info *info, layout *l) {
    uint8_t header[IMAGE_HEADER];
    if (!f->read(area.offset, header, IMAGE_HEADER)) {
        return IMAGE_UNREADABLE;
    }
    if (get(&header[0], 4) != HEADER_MAGIC) {
        return IMAGE_NONE;
    }
    const uint32_t load_address = get(&header[4], 4), body = get(&header[12], 4);
    const uint32_t flags = get(&header[16], 4), padding = get(&header[28], 4);
    info->header_size = get(&header[8], 2);
    l->protected_size = get(&header[10], 2);
    info->version_major = header[20];
    info->version_minor = header[21];
    info->version_revision = (uint16_t)get(&header[22], 2);
    info->version_build = get(&header[24], 4);
    if (load_address != 0 || flags != 0 || padding != 0 || info->header_size < IMAGE_HEADER ||
        info->header_size > HEADER_SIZE_MAX || body == 0) {
        return IMAGE_HEADER_WRONG;
    }
    if (body > area.size || info->header_size + l->protected_size > area.size - body) {
        return IMAGE_TOO_LARGE;
    }
    l->body_end = info->header_size + body;
    return IMAGE_GOOD;
}

/* Keep one TLV's value: `size` must be one of those that its type may have. */
static image_result keep(const flash *f, uint32_t offset, uint32_t size, uint8_t *to, bool *there) {
    if (*there) {
        return IMAGE_TLV_WRONG;
    }
    *there = true;
    return f->read(offset, to, size) ? IMAGE_GOOD : IMAGE_UNREADABLE;
}

static image_result read_tlv(const flash *f, bool is_protected, uint32_t type, uint32_t offset,
                             uint32_t size, tlvs *found, image_info *info) {
    if (is_protected) {
        uint8_t counter[4];
        image_result result;
        switch (type) {
        case TLV_COUNTER:
            if (size != sizeof(counter)) {
                return IMAGE_TLV_WRONG;
            }
            result = keep(f, offset, size, counter, &found->counter);
            info->counter = get(counter, 4);
            return result;
        case TLV_HARDWARE:
            if (size == 0 || size > IMAGE_HARDWARE_MAX) {
                return IMAGE_TLV_WRONG;
            }
            found->hardware_size = size;
            return keep(f, offset, size, found->hardware_bytes, &found->hardware);
        default:
            return IMAGE_GOOD; /* signed, and not ours to judge */
        }
    }
    switch (type) {
    case TLV_SHA256:
    case TLV_SHA512:
        if (size != (type == TLV_SHA256 ? 32U : 64U)) {
            return IMAGE_TLV_WRONG;
        }
        info->hash_size = size;
        return keep(f, offset, size, info->hash, &found->hash);
    case TLV_KEY_HASH:
        if (size != 32U && size != 64U) {
            return IMAGE_TLV_WRONG;
        }
        found->key_hash_size = size;
        return keep(f, offset, size, found->key_hash_bytes, &found->key_hash);
    case TLV_ED25519:
        if (size != sizeof(found->signature_bytes)) {
            return IMAGE_TLV_WRONG;
        }
        return keep(f, offset, size, found->signature_bytes, &found->signature);
    default:
        return IMAGE_TLV_WRONG;
    }
}

/* One area of TLVs from `start`; `*end` is where it ends. */
static image_result read_area(const flash *f, flash_area area, uint32_t start, bool is_protected,
                              uint32_t *end, tlvs *found, image_info *info) {
    uint8_t head[4];
    if (area.size - start < sizeof(head)) {
        return IMAGE_TRUNCATED;
    }
    if (!f->read(area.offset + start, head, sizeof(head))) {
        return IMAGE_UNREADABLE;
    }
    if (get(head, 2) != (is_protected ? TLV_PROTECTED_MAGIC : TLV_MAGIC)) {
        return IMAGE_TRUNCATED;
    }
    const uint32_t length = get(&head[2], 2);
    if (length > area.size - start) {
        return IMAGE_TOO_LARGE;
    }
    uint32_t at = 4;
    for (uint32_t count = 0; at != length; count++) {
        if (count == TLVS_MAX || length < 4U || length - at < 4U) {
            return IMAGE_TLV_WRONG;
        }
        if (!f->read(area.offset + start + at, head, sizeof(head))) {
            return IMAGE_UNREADABLE;
        }
        const uint32_t type = get(head, 2), size = get(&head[2], 2);
        at += 4;
        if (size > length - at) {
            return IMAGE_TLV_WRONG;
        }
        const image_result result = read_tlv(f, is_protected, type, area.offset + start + at, size,
                                             found, info);
        if (result != IMAGE_GOOD) {
            return result;
        }
        at += size;
    }
    *end = start + length;
    return IMAGE_GOOD;
}

static image_result read_all(const flash *f, flash_area area, image_info *info, layout *l,
                             tlvs *found) {
    memset(info, 0, sizeof(*info));
    memset(found, 0, sizeof(*found));
    image_result result = read_header(f, area, info, l);
    uint32_t end = l->body_end;
    if (result == IMAGE_GOOD && l->protected_size != 0) {
        result = read_area(f, area, l->body_end, true, &end, found, info);
        if (result == IMAGE_GOOD && end - l->body_end != l->protected_size) {
            result = IMAGE_TLV_WRONG;
        }
    }
    if (result == IMAGE_GOOD) {
        result = read_area(f, area, end, false, &l->tlv_end, found, info);
        info->size = l->tlv_end;
    }
    return result;
}

/* ---- hash and signature -----------------------------------------------------------------------*/

/* SHA-256 or SHA-512, by the size of the digest. */
typedef struct {
    uint32_t size;
    br_sha256_context sha256;
    br_sha512_context sha512;
} hasher;

static void hash_begin(hasher *h, uint32_t size) {
    h->size = size;
    br_sha256_init(&h->sha256);
    br_sha512_init(&h->sha512);
}

static void hash_add(hasher *h, const uint8_t *bytes, size_t length) {
    if (h->size == 32U) {
        br_sha256_update(&h->sha256, bytes, length);
    } else {
        br_sha512_update(&h->sha512, bytes, length);
    }
}

static void hash_end(const hasher *h, uint8_t *digest) {
    if (h->size == 32U) {
        br_sha256_out(&h->sha256, digest);
    } else {
        br_sha512_out(&h->sha512, digest);
    }
}

static image_result check_hash(const flash *f, flash_area area, uint32_t length,
                               const image_info *info) {
    hasher h;
    uint8_t bytes[FLASH_CHUNK], digest[IMAGE_HASH_MAX];
    hash_begin(&h, info->hash_size);
    for (uint32_t at = 0; at < length; at += FLASH_CHUNK) {
        const uint32_t left = length - at, size = left < FLASH_CHUNK ? left : FLASH_CHUNK;
        if (!f->read(area.offset + at, bytes, size)) {
            return IMAGE_UNREADABLE;
        }
        hash_add(&h, bytes, size);
    }
    hash_end(&h, digest);
    return memcmp(digest, info->hash, info->hash_size) == 0 ? IMAGE_GOOD : IMAGE_HASH_WRONG;
}

/* The key that the image names by its hash; NULL if the board has none such. */
static const uint8_t *find_key(const image_policy *policy, const tlvs *found) {
    for (uint32_t i = 0; i < policy->key_count; i++) {
        hasher h;
        uint8_t digest[IMAGE_HASH_MAX];
        hash_begin(&h, found->key_hash_size);
        hash_add(&h, KEY_PREFIX, sizeof(KEY_PREFIX));
        hash_add(&h, policy->keys[i], 32);
        hash_end(&h, digest);
        if (memcmp(digest, found->key_hash_bytes, found->key_hash_size) == 0) {
            return policy->keys[i];
        }
    }
    return NULL;
}

/* Ed25519 (RFC 8032, 5.1.7) of the digest; the curve is Monocypher's, SHA-512 is BearSSL's. */
static bool signature_holds(const uint8_t *key, const tlvs *found, const image_info *info) {
    hasher h;
    uint8_t digest[64], reduced[32];
    hash_begin(&h, 64);
    hash_add(&h, found->signature_bytes, 32);
    hash_add(&h, key, 32);
    hash_add(&h, info->hash, info->hash_size);
    hash_end(&h, digest);
    crypto_eddsa_reduce(reduced, digest);
    return crypto_eddsa_check_equation(found->signature_bytes, key, reduced) == 0;
}

/* ---- the verdict ------------------------------------------------------------------------------*/

/* What a signed image says must fit this board. */
static image_result check_fit(const tlvs *found, const image_info *info, const image_policy *policy,
                              uint32_t floor) {
    if (!found->hardware) {
        return IMAGE_HARDWARE_MISSING;
    }
    if (found->hardware_size != strlen(policy->hardware) ||
        memcmp(found->hardware_bytes, policy->hardware, found->hardware_size) != 0) {
        return IMAGE_HARDWARE_WRONG;
    }
    if (!found->counter) {
        return IMAGE_COUNTER_MISSING;
    }
    return info->counter < floor ? IMAGE_COUNTER_OLD : IMAGE_GOOD;
}

image_result image_check(const flash *f, flash_area area, const image_policy *policy,
                         uint32_t floor, image_info *info) {
    layout l = {0};
    tlvs found;
    image_result result = read_all(f, area, info, &l, &found);
    if (result != IMAGE_GOOD) {
        return result;
    }
    if (!found.hash) {
        return IMAGE_HASH_MISSING;
    }
    result = check_hash(f, area, l.body_end + l.protected_size, info);
    if (result != IMAGE_GOOD) {
        return result;
    }
    if (!found.signature || !found.key_hash) {
        return IMAGE_SIGNATURE_MISSING;
    }
    const uint8_t *key = find_key(policy, &found);
    if (key == NULL) {
        return IMAGE_KEY_UNKNOWN;
    }
    if (!signature_holds(key, &found, info)) {
        return IMAGE_SIGNATURE_WRONG;
    }
    return check_fit(&found, info, policy, floor);
}

image_result image_read(const flash *f, flash_area area, image_info *info) {
    layout l = {0};
    tlvs found;
    return read_all(f, area, info, &l, &found);
}
