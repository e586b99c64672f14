/* QEMU's MPS2 AN386 (Cortex-M4F): the window at 0x21000000 is RAM that the plant maps as a file.
 *
 *   qemu-system-arm -M mps2-an386,memory-backend=ps \
 *     -object memory-backend-file,id=ps,size=16M,mem-path=WINDOW,share=on -kernel mps2_an386.elf
 *
 * The invariant: whatever goes wrong, the torque-enable field is 0 before anything else runs: the
 * first instruction of C after a reset and of every fault handler writes it. */
#include <string.h>

#include "edge_wire/Identity_1_0.h"
#include "loop.h"
#include "port.h"
#include "window_port.h"

#define WINDOW ((volatile window *)0x21000000U)
#define REGISTER(address) (*(volatile uint32_t *)(address))

/* CMSDK APB watchdog of the AN386, 25 MHz (Arm DDI 0479, section 4.5). */
#define WATCHDOG_LOAD REGISTER(0x40008000U)
#define WATCHDOG_CONTROL REGISTER(0x40008008U)
#define WATCHDOG_CLEAR REGISTER(0x4000800CU)
#define WATCHDOG_LOCK REGISTER(0x40008C00U)
enum { WATCHDOG_US = 20000, CLOCK_MHZ = 25, GUARD_BYTES = 1024 };
/* CMSDK timer 0: a free-running count down, so that a hang's time can be told. */
#define TIMER_CONTROL REGISTER(0x40000000U)
#define TIMER_VALUE REGISTER(0x40000004U)
#define TIMER_RELOAD REGISTER(0x40000008U)
/* ARMv7-M: reset request, fault status, memory and bus faults of their own. */
#define AIRCR REGISTER(0xE000ED0CU)
#define SHCSR REGISTER(0xE000ED24U)
#define MPU_CTRL REGISTER(0xE000ED94U)
#define MPU_RNR REGISTER(0xE000ED98U)
#define MPU_RBAR REGISTER(0xE000ED9CU)
#define MPU_RASR REGISTER(0xE000EDA0U)

extern uint32_t stack_bottom, stack_top, data_start, data_end, data_load, bss_start, bss_end;
int main(void);
void reset(void);

static uint32_t last_fed; /* the timer at the last feeding */

static void request_reset(uint32_t cause) {
    WINDOW->torque_enable = 0;
    window_survivor(WINDOW)->cause = cause;
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    AIRCR = 0x05FA0004U; /* SYSRESETREQ */
    for (;;) {
    }
}

/* Runs on a stack of its own: the one that overflowed cannot be used. */
__attribute__((used)) static void on_fault(uint32_t stack) {
    const bool overflow = stack < (uint32_t)(uintptr_t)&stack_bottom + GUARD_BYTES + 64U;
    request_reset(overflow ? edge_wire_Identity_1_0_RESET_STACK_OVERFLOW
                           : edge_wire_Identity_1_0_RESET_HARD_FAULT);
}

__attribute__((naked)) static void hard_fault(void) {
    __asm volatile("mov r0, sp\n"
                   "ldr r1, =stack_top\n"
                   "mov sp, r1\n"
                   "b on_fault\n");
}

/* The watchdog's first expiry: an interrupt (NMI), which names the cause; its second resets. */
static void watchdog_expired(void) {
    WINDOW->unfed_us = (last_fed - TIMER_VALUE) / CLOCK_MHZ; /* it counts down */
    request_reset(edge_wire_Identity_1_0_RESET_WATCHDOG);
}

__attribute__((section(".vectors"), used)) static const uintptr_t vectors[16] = {
    (uintptr_t)&stack_top,      (uintptr_t)reset,      (uintptr_t)watchdog_expired,
    (uintptr_t)hard_fault,      (uintptr_t)hard_fault, (uintptr_t)hard_fault,
    (uintptr_t)hard_fault,      0, 0, 0, 0,            (uintptr_t)hard_fault,
    (uintptr_t)hard_fault,      0, (uintptr_t)hard_fault, (uintptr_t)hard_fault};

void reset(void) {
    WINDOW->torque_enable = 0;
    memcpy(&data_start, &data_load, (size_t)((uintptr_t)&data_end - (uintptr_t)&data_start));
    memset(&bss_start, 0, (size_t)((uintptr_t)&bss_end - (uintptr_t)&bss_start));
    (void)main();
}

/* The lowest KiB of the stack may not be touched: what lies below it is no memory, and this
 * emulator ignores writes there. ARMv7-M, B3.5. */
static void guard_start(void) {
    MPU_RNR = 0;
    MPU_RBAR = (uint32_t)(uintptr_t)&stack_bottom;
    MPU_RASR = 1U << 28 | 9U << 1 | 1U; /* execute never, no access, 2^(9 + 1) bytes, on */
    SHCSR |= 1U << 16;                  /* memory faults of their own */
    MPU_CTRL = 5U;                      /* on; elsewhere the default map */
    __asm volatile("dsb\nisb" ::: "memory");
}

static void watchdog_start(void) {
    WATCHDOG_LOCK = 0x1ACCE551U;
    WATCHDOG_LOAD = WATCHDOG_US * CLOCK_MHZ;
    WATCHDOG_CONTROL = 3U; /* interrupt, and reset if it is not answered */
    WATCHDOG_LOCK = 0;
}

void port_feed(void) {
    last_fed = TIMER_VALUE;
    WATCHDOG_LOCK = 0x1ACCE551U;
    WATCHDOG_CLEAR = 1U;
    WATCHDOG_LOCK = 0;
}

/* Deeper than the stack is; through a volatile bound, or the compiler sees that it never ends. */
__attribute__((noinline)) static uint32_t overflow(uint32_t depth) {
    static volatile uint32_t deepest = 0xFFFFFFFFU;
    volatile uint32_t frame[64];
    frame[depth % 64U] = depth;
    if (depth == deepest) {
        return 0;
    }
    const uint32_t below = overflow(depth + 1U); /* then the frame again, so it is no loop */
    return below + frame[depth % 64U];
}

/* What a test breaks, as it would break by itself. */
static void inject(uint8_t what) {
    WINDOW->inject = 0;
    switch (what) {
    case INJECT_HANG:
        for (;;) {
        }
    case INJECT_HARD_FAULT:
        REGISTER(0xF0000000U) = 1U;
        break;
    case INJECT_STACK_OVERFLOW:
        (void)overflow(0);
        break;
    default:
        break;
    }
}

uint64_t port_wait(void) {
    /* A plant that is away is not a hang of the firmware: waiting for it feeds. */
    while (WINDOW->tick == WINDOW->tick_done) {
        port_feed();
    }
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    if (WINDOW->inject != 0) {
        inject(WINDOW->inject);
    }
    return (uint64_t)WINDOW->tick * 1000U;
}

int main(void) {
    guard_start();
    TIMER_RELOAD = 0xFFFFFFFFU;
    TIMER_VALUE = 0xFFFFFFFFU;
    TIMER_CONTROL = 1U;
    window_use(WINDOW, edge_wire_Identity_1_0_CAPABILITY_ESTOP_INPUT |
                           edge_wire_Identity_1_0_CAPABILITY_HARDWARE_WATCHDOG);
    loop_start();
    watchdog_start();
    for (;;) {
        loop_once();
        __atomic_thread_fence(__ATOMIC_SEQ_CST);
        WINDOW->tick_done = WINDOW->tick;
    }
}
