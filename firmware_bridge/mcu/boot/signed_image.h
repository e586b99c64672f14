/* Firmware images as MCUboot's `imgtool` makes them, and what a board accepts of them.
 *
 *     0          header   32 bytes, and zeros up to its header size
 *     hdr_size   body     img_size bytes: the program, its vector table first
 *                protected TLVs   magic 0x6908, length; hardware (0xA0), security counter (0x50)
 *                TLVs             magic 0x6907, length; SHA-256 (0x10) or SHA-512 (0x12), the
 *                                 key's hash (0x01), Ed25519 (0x24) over that digest
 *
 * The digest covers header, body and protected TLVs. Everything outside it is checked byte by byte:
 * a TLV that is unknown there, or comes twice, refuses the image. */
#ifndef EDGE_WM_SIGNED_IMAGE_H
#define EDGE_WM_SIGNED_IMAGE_H

#include "flash.h"

enum { IMAGE_HEADER = 32, IMAGE_HASH_MAX = 64, IMAGE_HARDWARE_MAX = 16 };

typedef enum {
    IMAGE_GOOD = 0,
    IMAGE_NONE = 1,             /* no image begins here */
    IMAGE_HEADER_WRONG = 2,     /* sizes that cannot be, or flags that are not known here */
    IMAGE_TOO_LARGE = 3,        /* ends behind its slot */
    IMAGE_TRUNCATED = 4,        /* no TLVs where the body ends */
    IMAGE_TLV_WRONG = 5,        /* a TLV that is too long, unknown, or there twice */
    IMAGE_HASH_MISSING = 6,
    IMAGE_HASH_WRONG = 7,
    IMAGE_SIGNATURE_MISSING = 8,
    IMAGE_KEY_UNKNOWN = 9,      /* signed with a key that this board does not have */
    IMAGE_SIGNATURE_WRONG = 10,
    IMAGE_HARDWARE_MISSING = 11,
    IMAGE_HARDWARE_WRONG = 12,  /* for another board */
    IMAGE_COUNTER_MISSING = 13,
    IMAGE_COUNTER_OLD = 14,     /* below the board's floor: a downgrade */
    IMAGE_UNREADABLE = 15,      /* the flash does not answer */
} image_result;

/* What a board accepts. */
typedef struct {
    const char *hardware;          /* its name, as in board_table, at most IMAGE_HARDWARE_MAX */
    const uint8_t (*keys)[32];     /* Ed25519 public keys */
    uint32_t key_count;
    bool developer;                /* marked: a developer's board, whose key nobody else's board has */
} image_policy;

typedef struct {
    uint8_t version_major, version_minor;
    uint16_t version_revision;
    uint32_t version_build;
    uint32_t header_size; /* the program begins here */
    uint32_t size;        /* with header and TLVs, bytes */
    uint32_t counter;
    uint32_t hash_size; /* 32 or 64 */
    uint8_t hash[IMAGE_HASH_MAX];
} image_info;

/* Check the image at the start of `area`, signature and all. `info` is whole if the result is
 * IMAGE_GOOD; before that it holds what had been read. */
image_result image_check(const flash *f, flash_area area, const image_policy *policy,
                         uint32_t floor, image_info *info);

/* The same without hash and signature: what the image says of itself. */
image_result image_read(const flash *f, flash_area area, image_info *info);

#endif
