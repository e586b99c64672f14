/* The firmware in a slot of QEMU's MPS2 AN386, on UART 0, with an ideal plant inside.
 *
 * One wire carries the link and SMP (boot/smp.h). An image on trial is confirmed by the host; until
 * then any reset takes it back, and it resets by itself if no confirmation comes in time. Torque is a word of the window in RAM, off before anything else. */
#include <string.h>

#include "an386.h"
#include "edge_wire/Identity_1_0.h"
#include "loop.h"
#include "port.h"
#include "smp.h"
#include "window_port.h"

enum { TRIAL_US = 30000000 }; /* without a confirmation: then the host does not hear us, or is gone */
enum { WATCHDOG_US = 1000000 }; /* long, for a busy machine's emulator and a signature's check */

extern uint32_t stack_top, data_start, data_end, data_load, bss_start, bss_end;
int main(void);
_Noreturn void reset(void);

__attribute__((section(".kept"))) static window own; /* its no_init outlives a reset */
static boot the_boot;
static smp_server server;
static bool in_frame; /* of the link, on the way out */

static _Noreturn void reset_for(uint32_t cause) {
    own.torque_enable = 0;
    window_survivor(&own)->cause = cause;
    an386_reset();
}
static void watchdog_expired(void) { reset_for(edge_wire_Identity_1_0_RESET_WATCHDOG); }
static void hard_fault(void) { reset_for(edge_wire_Identity_1_0_RESET_HARD_FAULT); }

__attribute__((section(".vectors"), used)) static const uintptr_t vectors[16] = {
    (uintptr_t)&stack_top, (uintptr_t)reset, (uintptr_t)watchdog_expired, (uintptr_t)hard_fault,
    (uintptr_t)hard_fault, (uintptr_t)hard_fault, (uintptr_t)hard_fault, 0, 0, 0, 0,
    (uintptr_t)hard_fault, (uintptr_t)hard_fault, 0, (uintptr_t)hard_fault,
    (uintptr_t)hard_fault};

_Noreturn void reset(void) {
    own.torque_enable = 0;
    memcpy(&data_start, &data_load, (size_t)((uintptr_t)&data_end - (uintptr_t)&data_start));
    memset(&bss_start, 0, (size_t)((uintptr_t)&bss_end - (uintptr_t)&bss_start));
    (void)main();
    an386_reset();
}

/* ---- the wire -----------------------------------------------------------------------------------*/
/* A frame of the link is worked before what follows it is heard: an Arm binds the next request. */
static void bytes_in(void) {
    window_ring *ring = &own.to_device;
    while ((UART_STATE & UART_RX_FULL) != 0 && ring->written - ring->read < WINDOW_RING &&
           !(smp_between(&server) && ring->written != ring->read)) {
        const uint8_t byte = (uint8_t)UART_DATA;
        server.armed = own.torque_enable != 0;
        if (!smp_receive(&server, byte)) {
            ring->data[ring->written % WINDOW_RING] = byte;
            ring->written++;
        }
    }
}

/* An answer of SMP goes between two frames of the link; every frame has a 00 at both ends. */
static void bytes_out(void) {
    window_ring *ring = &own.to_host;
    while ((UART_STATE & UART_TX_FULL) == 0) {
        uint8_t byte;
        if (in_frame || smp_transmit(&server, &byte, 1) == 0) {
            if (ring->read == ring->written) {
                break;
            }
            byte = ring->data[ring->read % WINDOW_RING];
            ring->read++;
            in_frame = in_frame != (byte == 0);
        }
        UART_DATA = byte;
    }
    if (server.reset_wanted && smp_pending(&server) == 0) {
        HANDOVER = 0; /* on purpose */
        reset_for(edge_wire_Identity_1_0_RESET_SOFTWARE);
    }
}

/* An image on trial that cannot be confirmed, because its link is broken, must not stay. */
static void end_trial(uint64_t now_us) {
    if (the_boot.journal.entry.state == STATE_TRIAL && now_us > TRIAL_US &&
        own.torque_enable == 0) {
        HANDOVER = 0; /* on purpose */
        reset_for(edge_wire_Identity_1_0_RESET_SOFTWARE);
    }
}

uint64_t port_wait(void) {
    static uint64_t now_ticks, due_ticks;
    static uint32_t last;
    do {
        an386_pause();
        bytes_in();
        bytes_out();
        const uint32_t ticks = an386_ticks();
        now_ticks += ticks - last;
        last = ticks;
    } while (now_ticks < due_ticks);
    due_ticks = now_ticks + 1000U * CLOCK_MHZ;
    end_trial(now_ticks / CLOCK_MHZ);
    return now_ticks / CLOCK_MHZ;
}

void port_feed(void) { an386_feed(); }

/* ---- the plant: follows the reference without error ---------------------------------------------*/
static void plant(void) {
    for (int axis = 0; axis < 2; axis++) {
        window_axis_in *in = &own.in[axis];
        const window_axis_out *out = &own.out[axis];
        in->velocity = own.torque_enable != 0 ? out->reference_velocity : 0;
        in->position = own.torque_enable != 0 ? out->reference_position : in->position;
        in->temperature = 250;
        in->flags = INPUT_POSITION | INPUT_CURRENT | INPUT_TEMPERATURE | INPUT_ANSWERED;
    }
    own.bus_mV = 24000;
}

static void identify(void) {
    static image_info info;
    static uint8_t serial[12];
    (void)image_read(&an386_flash, an386_flash.slot[0], &info);
    (void)an386_flash.read(AN386_SERIAL, serial, sizeof(serial));
    window_use(&own, (uint8_t)(edge_wire_Identity_1_0_CAPABILITY_ESTOP_INPUT |
                               edge_wire_Identity_1_0_CAPABILITY_HARDWARE_WATCHDOG |
                               edge_wire_Identity_1_0_CAPABILITY_UPDATE |
                               (an386_policy()->developer
                                    ? edge_wire_Identity_1_0_CAPABILITY_DEVELOPER : 0)));
    window_identify(info.hash, serial);
}

int main(void) {
    memset(own.in, 0, sizeof(own.in));
    memset(own.out, 0, sizeof(own.out));
    own.to_device.read = own.to_device.written = 0;
    own.to_host.read = own.to_host.written = 0;
    own.estop_open = 0;
    own.board = WINDOW_BOARD_ARM;
    an386_start();
    (void)boot_open(&the_boot, &an386_flash, an386_policy());
    identify();
    loop_start();
    smp_init(&server, &the_boot);
    an386_watchdog(WATCHDOG_US);
    for (;;) {
        plant();
        loop_once();
    }
}
