/* An example of what may be wired to an RP2040: two wheels as in port/stm32f405/plant.c.
 *
 *     GPIO2         torque enable, high; a pull-down on the board keeps it off in reset
 *     GPIO3         emergency stop, normally closed to ground: open reads high
 *     GPIO4 GPIO5   encoder 0          GPIO6 GPIO7   encoder 1
 *     GPIO16 GPIO18 current wanted     GPIO17 GPIO19 directions
 *     GPIO26        bus voltage / 11   GPIO27 GPIO28 currents, 1.65 V at 0   GPIO29 temperature
 *
 * This processor counts no quadrature by itself: an interrupt at every edge does, good for some
 * 50,000 counts a second and axis. Faster encoders want a program of the PIO (chapter 3). */
#include "cortex_m.h"
#include "measure.h"
#include "plant.h"
#include "port.h"

enum { AXES = 2, COUNTS_PER_TURN = 2048, CURRENT_FULL_mA = 10000, BUS_DIVIDER = 11 };
enum { ENABLE = 2, ESTOP = 3, ENCODER = 4, DRIVE = 16, ANALOG = 26, CHANNELS = 4 };
enum { PWM_FULL = 6250, BANK0_IRQ = 13 }; /* 20 kHz of 125 MHz */
enum { FUNCTION_PWM = 4, FUNCTION_SIO = 5 };
enum { PAD_PULL_DOWN = 1U << 2, PAD_PULL_UP = 1U << 3, PAD_INPUT = 1U << 6, PAD_NO_OUTPUT = 1U << 7 };

/* Pins: functions and edges (2.19.6.1), pads (2.19.6.3), values (2.3.1.7). */
#define IO_BANK0_CTRL(pin) REGISTER(0x40014004U + 8U * (pin))
#define IO_BANK0_INTR0 REGISTER(0x400140F0U) /* pins 0 to 7, four bits each: low, high, fell, rose */
#define IO_BANK0_INTE0 REGISTER(0x40014100U)
#define PADS_BANK0(pin) REGISTER(0x4001C004U + 4U * (pin))
#define SIO_IN REGISTER(0xD0000004U)
#define SIO_OUT_SET REGISTER(0xD0000014U)
#define SIO_OUT_CLEAR REGISTER(0xD0000018U)
#define SIO_OE_SET REGISTER(0xD0000024U)
/* PWM slices 0 and 1, their channel A (4.5.3). */
#define PWM_CSR(slice) REGISTER(0x40050000U + 0x14U * (slice))
#define PWM_CC(slice) REGISTER(0x4005000CU + 0x14U * (slice))
#define PWM_TOP(slice) REGISTER(0x40050010U + 0x14U * (slice))
/* Converter (4.9.6). */
#define ADC_CS REGISTER(0x4004C000U)
#define ADC_RESULT REGISTER(0x4004C004U)
enum { CS_EN = 1U << 0, CS_START_ONCE = 1U << 2, CS_READY = 1U << 8, CS_ERR = 1U << 9 };
#define NVIC_ISER REGISTER(0xE000E100U)

static encoder encoders[AXES];
static volatile uint32_t counts[AXES]; /* modulo 2^32, by the interrupt */
static uint32_t last_counts[AXES];
static uint32_t phase[AXES];

static const board_table wheels = {
    .hardware = "rp2040",
    .axes = AXES,
    .dead_man_max_us = 250000,
    .bus_min_mV = 18000,
    .bus_max_mV = 30000,
    .axis = {{.kind = 3, .velocity_max = 20000000, .acceleration_max = 80000000,
              .braking = 80000000, .torque_max = 2000, .current_max = 8000,
              .temperature_max = 800, .gains = {.kp = 400, .ki = 800}, .jump = 200000,
              .frozen_travel = 20000, .rest_velocity = 200000},
             {.kind = 3, .velocity_max = 20000000, .acceleration_max = 80000000,
              .braking = 80000000, .torque_max = 2000, .current_max = 8000,
              .temperature_max = 800, .gains = {.kp = 400, .ki = 800}, .jump = 200000,
              .frozen_travel = 20000, .rest_velocity = 200000}}};

void plant_torque_off(void) {
    SIO_OUT_CLEAR = 1U << ENABLE; /* SIO is never in reset; the PWM is, at the start */
}

/* Two bits of both inputs; by steps of one, or none where an edge was missed. */
void plant_pins_changed(void) {
    static const int8_t step[16] = {0, 1, -1, 0, -1, 0, 0, 1, 1, 0, 0, -1, 0, -1, 1, 0};
    IO_BANK0_INTR0 = 0xCCCC0000U; /* seen: pins 4 to 7 */
    const uint32_t pins = SIO_IN;
    for (uint32_t axis = 0; axis < AXES; axis++) {
        const uint32_t now = pins >> (ENCODER + 2U * axis) & 3U;
        counts[axis] = counts[axis] + (uint32_t)(int32_t)step[phase[axis] << 2 | now];
        phase[axis] = now;
    }
}

const board_table *plant_start(void) {
    plant_torque_off();
    SIO_OE_SET = 1U << ENABLE | 1U << (DRIVE + 1U) | 1U << (DRIVE + 3U);
    IO_BANK0_CTRL(ENABLE) = FUNCTION_SIO;
    PADS_BANK0(ESTOP) = PAD_INPUT | PAD_PULL_UP;
    IO_BANK0_CTRL(ESTOP) = FUNCTION_SIO;
    for (uint32_t axis = 0; axis < AXES; axis++) {
        const uint32_t at = ENCODER + 2U * axis;
        PADS_BANK0(at) = PAD_INPUT | PAD_PULL_UP;
        PADS_BANK0(at + 1U) = PAD_INPUT | PAD_PULL_UP;
        IO_BANK0_CTRL(at) = FUNCTION_SIO;
        IO_BANK0_CTRL(at + 1U) = FUNCTION_SIO;
        phase[axis] = SIO_IN >> at & 3U;
        PWM_TOP(axis) = PWM_FULL - 1U;
        PWM_CSR(axis) = 1U;
        IO_BANK0_CTRL(DRIVE + 2U * axis) = FUNCTION_PWM;
        IO_BANK0_CTRL(DRIVE + 2U * axis + 1U) = FUNCTION_SIO;
    }
    for (uint32_t channel = 0; channel < CHANNELS; channel++) {
        PADS_BANK0(ANALOG + channel) = PAD_NO_OUTPUT; /* no pull, no digital input (4.9.1) */
    }
    ADC_CS = CS_EN;
    IO_BANK0_INTE0 = 0xCCCC0000U;
    NVIC_ISER = 1U << BANK0_IRQ;
    return &wheels;
}

/* One conversion takes 2 us; false if it did not end in time, or has an error. */
static bool convert(uint32_t channel, uint16_t *raw) {
    ADC_CS = CS_EN | channel << 12 | CS_START_ONCE;
    for (uint32_t turn = 0; turn < 200U; turn++) {
        const uint32_t state = ADC_CS;
        if ((state & CS_READY) != 0) {
            *raw = (uint16_t)ADC_RESULT;
            return (state & CS_ERR) == 0;
        }
    }
    *raw = 0;
    return false;
}

void port_read(core_inputs *inputs) {
    const uint32_t now_us = plant_clock_us();
    uint16_t bus, current, temperature;
    const bool bus_known = convert(0, &bus);
    const bool temperature_known = convert(3, &temperature);
    for (uint32_t axis = 0; axis < AXES; axis++) {
        axis_input *input = &inputs->axis[axis];
        const uint32_t count = counts[axis];
        const int32_t moved = (int32_t)(count - last_counts[axis]);
        last_counts[axis] = count;
        encoder_sample(&encoders[axis], moved, COUNTS_PER_TURN, now_us, input);
        input->flags = INPUT_ANSWERED | INPUT_POSITION;
        const bool current_known = convert(1U + axis, &current);
        if (analog_current(current, CURRENT_FULL_mA, &input->current_mA) && current_known) {
            input->flags |= INPUT_CURRENT;
        }
        if (analog_temperature(temperature, &input->temperature) && temperature_known) {
            input->flags |= INPUT_TEMPERATURE;
        }
    }
    inputs->bus_mV = bus_known ? analog_bus_mV(bus, BUS_DIVIDER) : 0;
    inputs->estop_open = (SIO_IN & 1U << ESTOP) != 0;
}

void port_drive(const core_outputs *outputs) {
    if (!outputs->torque_enable) {
        plant_torque_off();
        PWM_CC(0U) = 0;
        PWM_CC(1U) = 0;
        return;
    }
    for (uint32_t axis = 0; axis < AXES; axis++) {
        const int32_t torque = outputs->torque[axis];
        const uint32_t direction = 1U << (DRIVE + 2U * axis + 1U);
        if (torque < 0) {
            SIO_OUT_SET = direction;
        } else {
            SIO_OUT_CLEAR = direction;
        }
        PWM_CC(axis) = measure_duty(torque, wheels.axis[axis].torque_max, PWM_FULL);
    }
    SIO_OUT_SET = 1U << ENABLE;
}
