/* The window between a plant and the firmware: one packed struct in a shared file of 64 KiB.
 *
 *        0  magic "EWMW", version, layout, board
 *       16  tick (plant writes), tick_done (firmware writes), time_us
 *       64  inputs: 8 axes of 16 B, then bus, e-stop, injections
 *      256  outputs: 8 axes of 12 B, then torque enable, mode, reason
 *      512  the port's memory that survives a reset (fault log, reset cause)
 *     4096  ring host -> device, 16 B of counters and 16 KiB
 *    24576  ring device -> host
 *
 * One turn: the plant writes the inputs and bytes, then tick + 1; the firmware sees it, works one
 * millisecond with time tick * 1000 us, writes outputs and bytes, then tick_done = tick. Its mirror
 * is firmware_bridge/window.py. All little-endian. */
#ifndef EDGE_WM_WINDOW_H
#define EDGE_WM_WINDOW_H

#include <stddef.h>
#include <stdint.h>

enum { WINDOW_BYTES = 65536, WINDOW_MAGIC = 0x574D5745, WINDOW_VERSION = 1, WINDOW_RING = 16384 };
enum { WINDOW_BOARD_ARM = 1, WINDOW_BOARD_ROVER = 2, WINDOW_BOARD_SERVOS = 3 };
enum { WINDOW_ANSWERED = 8 }; /* the axis' sensor answered; bits 0-2 as in AxisStatus.flags */
/* What to break, for the tests of the watchdog and of the fault handlers (QEMU's port only). */
enum { INJECT_HANG = 1, INJECT_HARD_FAULT = 2, INJECT_STACK_OVERFLOW = 3 };

typedef struct {
    int32_t position;    /* urad or um */
    int32_t velocity;    /* urad/s or um/s */
    int32_t current_mA;
    int16_t temperature; /* 0.1 degC */
    uint8_t flags;
    uint8_t reserved;
} window_axis_in;
_Static_assert(sizeof(window_axis_in) == 16, "16 B an axis");

typedef struct {
    int32_t torque;             /* mN m or mN */
    int32_t reference_position; /* urad or um */
    int32_t reference_velocity; /* urad/s or um/s */
} window_axis_out;
_Static_assert(sizeof(window_axis_out) == 12, "12 B an axis");

typedef struct {
    uint32_t written, read; /* bytes ever; modulo WINDOW_RING in data; written - read are waiting */
    uint32_t reserved[2];
    uint8_t data[WINDOW_RING];
} window_ring;

typedef struct {
    uint32_t magic;
    uint32_t version;
    uint32_t layout; /* the size of this struct: a mirror that differs shows */
    uint32_t board;  /* WINDOW_BOARD_..., by the plant, before the start */

    uint32_t tick;      /* 16: counts up; by the plant */
    uint32_t tick_done; /* 20: by the firmware */
    uint64_t time_us;   /* 24: the plant's time of `tick`; the firmware's own is tick * 1000 */
    uint32_t boots;     /* 32: by the firmware, at each start */
    uint8_t servos;     /* 36: how many, 1 to 8, where the board is WINDOW_BOARD_SERVOS */
    uint8_t reserved0[27];

    window_axis_in in[8]; /* 64 */
    uint32_t bus_mV;      /* 192 */
    uint8_t estop_open;   /* 196 */
    uint8_t inject;       /* 197: INJECT_..., cleared by the firmware when it begins it */
    uint8_t reserved1[58];

    window_axis_out out[8]; /* 256 */
    uint32_t torque_enable; /* 352: the torque-enable pin; off at reset */
    uint16_t reason;        /* 356 */
    uint8_t mode;           /* 358 */
    uint8_t fault_axis;     /* 359: 255 where it has none */
    uint8_t damp;           /* 360: bit per axis */
    uint8_t braking;        /* 361 */
    uint8_t reset_cause;    /* 362: Identity's, of this boot */
    uint8_t reserved_2a;
    uint32_t unfed_us;      /* 364: how long the watchdog had gone unfed when it last expired */
    uint8_t reserved2[144];

    uint8_t no_init[3584]; /* 512: survives the firmware's reset */

    window_ring to_device; /* 4096 */
    uint8_t reserved3[4080];
    window_ring to_host; /* 24576 */
    uint8_t reserved4[24560];
} window;

_Static_assert(offsetof(window, tick) == 16, "tick");
_Static_assert(offsetof(window, in) == 64, "inputs");
_Static_assert(offsetof(window, bus_mV) == 192, "bus");
_Static_assert(offsetof(window, out) == 256, "outputs");
_Static_assert(offsetof(window, torque_enable) == 352, "torque enable");
_Static_assert(offsetof(window, no_init) == 512, "no-init");
_Static_assert(offsetof(window, to_device) == 4096, "ring");
_Static_assert(offsetof(window, to_host) == 24576, "ring");
_Static_assert(sizeof(window) == WINDOW_BYTES, "64 KiB");

#endif
