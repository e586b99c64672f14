#include "cortex_m.h"

#include <stdbool.h>
#include <string.h>

#include "edge_wire/Identity_1_0.h"

enum { SURVIVOR_MAGIC = 0x4B455054, GUARD_BYTES = 1024 };

/* ARMv6-M and ARMv7-M alike: B3.2.5 and B3.2.13 (system control), B3.5 (memory protection). */
#define VTOR REGISTER(0xE000ED08U)
#define SHCSR REGISTER(0xE000ED24U)
#define MPU_CTRL REGISTER(0xE000ED94U)
#define MPU_RNR REGISTER(0xE000ED98U)
#define MPU_RBAR REGISTER(0xE000ED9CU)
#define MPU_RASR REGISTER(0xE000EDA0U)

extern uint32_t stack_bottom, data_start, data_end, data_load, bss_start, bss_end;
int main(void);

__attribute__((section(".noinit"))) survivor kept;

void reset(void) {
    board_torque_off();
    memcpy(&data_start, &data_load, (size_t)((uintptr_t)&data_end - (uintptr_t)&data_start));
    memset(&bss_start, 0, (size_t)((uintptr_t)&bss_end - (uintptr_t)&bss_start));
    VTOR = (uint32_t)(uintptr_t)vectors; /* a boot loader's table was there before */
    (void)main();
    request_reset(edge_wire_Identity_1_0_RESET_HANG); /* main never returns */
}

_Noreturn void request_reset(uint32_t cause) {
    board_torque_off();
    kept.cause = cause;
    kept.magic = SURVIVOR_MAGIC;
    __asm volatile("dsb" ::: "memory");
    board_reset();
}

uint32_t cause_taken(void) {
    const uint32_t cause = kept.magic == SURVIVOR_MAGIC ? kept.cause : 0U;
    kept.magic = 0;
    return cause <= edge_wire_Identity_1_0_RESET_HANG ? cause : 0U;
}

/* On a stack of its own: the one that overflowed cannot be used. */
__attribute__((used)) static void on_fault(uint32_t stack) {
    const bool overflow = stack < (uint32_t)(uintptr_t)&stack_bottom + GUARD_BYTES + 64U;
    request_reset(overflow ? edge_wire_Identity_1_0_RESET_STACK_OVERFLOW
                           : edge_wire_Identity_1_0_RESET_HARD_FAULT);
}

__attribute__((naked)) void hard_fault(void) {
    __asm volatile("mov r0, sp\n"
                   "ldr r1, =stack_top\n"
                   "mov sp, r1\n"
                   "ldr r1, =on_fault\n"
                   "bx r1\n");
}

void guard_start(void) {
    MPU_RNR = 0;
    MPU_RBAR = (uint32_t)(uintptr_t)&stack_bottom;
    MPU_RASR = 1U << 28 | 9U << 1 | 1U; /* execute never, no access, 2^(9 + 1) bytes, on */
    SHCSR |= 1U << 16;                  /* memory faults of their own, where there are such */
    MPU_CTRL = 5U;                      /* on; elsewhere the default map */
    __asm volatile("dsb\nisb" ::: "memory");
}
