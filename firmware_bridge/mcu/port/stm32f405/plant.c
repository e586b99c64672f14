/* An example of what may be wired to an STM32F405: two wheels with geared motors and incremental
 * encoders. The motors' drivers regulate current; they take its value as PWM and a direction.
 *
 *     PB0       torque enable, high; a pull-down on the board keeps it off in reset
 *     PB1       emergency stop, normally closed to ground: open reads high
 *     PB4 PB5   encoder 0 (TIM3)       PB6 PB7   encoder 1 (TIM4)
 *     PC6 PC7   current wanted (TIM8)  PC8 PC9   directions
 *     PC0       bus voltage / 11       PC1 PC2   currents, 1.65 V at 0      PC3  temperature
 *
 * The table is this example's: write your motors' into it. Sections are RM0090's. */
#include "cortex_m.h"
#include "measure.h"
#include "plant.h"
#include "port.h"

enum { AXES = 2, COUNTS_PER_TURN = 8192, CURRENT_FULL_mA = 10000, BUS_DIVIDER = 11 };
enum { PWM_FULL = 8400 }; /* 20 kHz of TIM8's 168 MHz */

/* GPIO B and C, section 8.4. */
#define GPIOB_MODER REGISTER(0x40020400U)
#define GPIOB_PUPDR REGISTER(0x4002040CU)
#define GPIOB_IDR REGISTER(0x40020410U)
#define GPIOB_BSRR REGISTER(0x40020418U)
#define GPIOB_AFRL REGISTER(0x40020420U)
#define GPIOC_MODER REGISTER(0x40020800U)
#define GPIOC_BSRR REGISTER(0x40020818U)
#define GPIOC_AFRL REGISTER(0x40020820U)
/* TIM3 and TIM4, section 18.4. */
#define TIMER_CR1(base) REGISTER((base))
#define TIMER_SMCR(base) REGISTER((base) + 0x08U)
#define TIMER_CCMR1(base) REGISTER((base) + 0x18U)
#define TIMER_CNT(base) REGISTER((base) + 0x24U)
#define TIMER_ARR(base) REGISTER((base) + 0x2CU)
/* TIM8, section 17.4. */
#define TIM8_CR1 REGISTER(0x40010400U)
#define TIM8_EGR REGISTER(0x40010414U)
#define TIM8_CCMR1 REGISTER(0x40010418U)
#define TIM8_CCER REGISTER(0x40010420U)
#define TIM8_ARR REGISTER(0x4001042CU)
#define TIM8_CCR(axis) REGISTER(0x40010434U + 4U * (axis))
#define TIM8_BDTR REGISTER(0x40010444U)
enum { BDTR_OSSI = 1U << 10, BDTR_MOE = 1U << 15 };
/* ADC1, section 13.13: four injected conversions, which have a data register each. */
#define ADC_SR REGISTER(0x40012000U)
#define ADC_CR1 REGISTER(0x40012004U)
#define ADC_CR2 REGISTER(0x40012008U)
#define ADC_SMPR1 REGISTER(0x4001200CU)
#define ADC_JSQR REGISTER(0x40012038U)
#define ADC_JDR(index) REGISTER(0x4001203CU + 4U * (index))
#define ADC_CCR REGISTER(0x40012304U)
enum { SR_JEOC = 1U << 2, CR2_ADON = 1U, CR2_JSWSTART = 1U << 22 };

static const uint32_t encoder_timer[AXES] = {0x40000400U, 0x40000800U};
static encoder encoders[AXES];
static uint16_t last_count[AXES];

static const board_table wheels = {
    .hardware = "stm32f405",
    .axes = AXES,
    .dead_man_max_us = 250000,
    .bus_min_mV = 18000,
    .bus_max_mV = 30000,
    .axis = {{.kind = 3, .velocity_max = 20000000, .acceleration_max = 80000000,
              .braking = 80000000, .torque_max = 2000, .current_max = 8000,
              .temperature_max = 800, .gains = {.kp = 400, .ki = 800}, .jump = 200000,
              .frozen_travel = 6000, .rest_velocity = 100000},
             {.kind = 3, .velocity_max = 20000000, .acceleration_max = 80000000,
              .braking = 80000000, .torque_max = 2000, .current_max = 8000,
              .temperature_max = 800, .gains = {.kp = 400, .ki = 800}, .jump = 200000,
              .frozen_travel = 6000, .rest_velocity = 100000}}};

void plant_torque_off(void) {
    GPIOB_BSRR = 1U << 16;
    TIM8_BDTR = BDTR_OSSI; /* outputs at their idle level, low (17.4.18) */
}

const board_table *plant_start(void) {
    plant_torque_off();
    /* PB0 out, PB1 in, PB4 to 7 alternate function; what is in is pulled up. */
    GPIOB_MODER = (GPIOB_MODER & ~0xFF0FU) | 0xAA01U;
    GPIOB_PUPDR = (GPIOB_PUPDR & ~0xFF0CU) | 0x5504U;
    GPIOB_AFRL = (GPIOB_AFRL & 0x0000FFFFU) | 0x22220000U;
    /* PC0 to 3 analog, PC6 and 7 alternate function, PC8 and 9 out. */
    GPIOC_AFRL = (GPIOC_AFRL & 0x00FFFFFFU) | 0x33000000U;
    GPIOC_MODER = (GPIOC_MODER & ~0xFF0FFU) | 0x5A0FFU;
    for (uint32_t axis = 0; axis < AXES; axis++) {
        TIMER_CCMR1(encoder_timer[axis]) = 0x3131U; /* both inputs, filtered over 8 clocks */
        TIMER_SMCR(encoder_timer[axis]) = 3U;       /* both edges of both (18.3.12) */
        TIMER_ARR(encoder_timer[axis]) = 0xFFFFU;
        TIMER_CR1(encoder_timer[axis]) = 1U;
        last_count[axis] = (uint16_t)TIMER_CNT(encoder_timer[axis]);
    }
    TIM8_ARR = PWM_FULL - 1U;
    TIM8_CCMR1 = 0x6868U; /* PWM mode 1, new values with the period */
    TIM8_CCER = 0x11U;
    TIM8_EGR = 1U;
    TIM8_CR1 = 0x81U;
    ADC_CCR = 1U << 16; /* a quarter of APB2: 21 MHz, of at most 36 */
    ADC_CR1 = 1U << 8;  /* scan */
    ADC_SMPR1 = 4U | 4U << 3 | 4U << 6 | 4U << 9; /* 84 cycles: 18 us for all four */
    ADC_JSQR = 3U << 20 | 10U | 11U << 5 | 12U << 10 | 13U << 15;
    ADC_CR2 = CR2_ADON;
    return &wheels;
}

/* What was converted since the last millisecond; then the next one is begun. */
void port_read(core_inputs *inputs) {
    const bool converted = (ADC_SR & SR_JEOC) != 0;
    const uint32_t now_us = plant_clock_us();
    for (uint32_t axis = 0; axis < AXES; axis++) {
        axis_input *input = &inputs->axis[axis];
        const uint16_t count = (uint16_t)TIMER_CNT(encoder_timer[axis]);
        const int16_t moved = (int16_t)(uint16_t)(count - last_count[axis]);
        last_count[axis] = count;
        encoder_sample(&encoders[axis], moved, COUNTS_PER_TURN, now_us, input);
        input->flags = INPUT_ANSWERED | INPUT_POSITION;
        if (analog_current((uint16_t)ADC_JDR(1U + axis), CURRENT_FULL_mA, &input->current_mA) &&
            converted) {
            input->flags |= INPUT_CURRENT;
        }
        if (analog_temperature((uint16_t)ADC_JDR(3U), &input->temperature) && converted) {
            input->flags |= INPUT_TEMPERATURE;
        }
    }
    inputs->bus_mV = converted ? analog_bus_mV((uint16_t)ADC_JDR(0U), BUS_DIVIDER) : 0;
    inputs->estop_open = (GPIOB_IDR & 2U) != 0;
    ADC_SR = ~(uint32_t)SR_JEOC;
    ADC_CR2 = CR2_ADON | CR2_JSWSTART;
}

void port_drive(const core_outputs *outputs) {
    if (!outputs->torque_enable) {
        plant_torque_off();
        return;
    }
    for (uint32_t axis = 0; axis < AXES; axis++) {
        const int32_t torque = outputs->torque[axis];
        GPIOC_BSRR = torque < 0 ? 1U << (8U + axis) : 1U << (24U + axis);
        TIM8_CCR(axis) = measure_duty(torque, wheels.axis[axis].torque_max, PWM_FULL);
    }
    TIM8_BDTR = BDTR_OSSI | BDTR_MOE;
    GPIOB_BSRR = 1U;
}
