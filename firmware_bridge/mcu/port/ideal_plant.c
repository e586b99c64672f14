/* Instead of a board's sensors and motors, where there are none: follows the reference without
 * error, rolls out without torque. It touches no pin. For images that run in an emulator which has
 * the board's serial line and timer, but nothing on its pins. */
#include "board.h"
#include "plant.h"
#include "port.h"

static core_outputs driven;
static axis_input axes[AXES_MAX];

const board_table *plant_start(void) {
    return &board_arm;
}

void plant_torque_off(void) {}

void port_drive(const core_outputs *outputs) {
    driven = *outputs;
}

void port_read(core_inputs *inputs) {
    enum { SLOWER = 10000 }; /* urad/s in a millisecond */
    for (uint8_t axis = 0; axis < AXES_MAX; axis++) {
        axis_input *in = &axes[axis];
        if (driven.torque_enable && (driven.damp & (1U << axis)) == 0) {
            in->position = driven.reference_position[axis];
            in->velocity = driven.reference_velocity[axis];
        } else {
            const int32_t slower = in->velocity > SLOWER    ? in->velocity - SLOWER
                                   : in->velocity < -SLOWER ? in->velocity + SLOWER : 0;
            in->velocity = slower;
            in->position += slower / 1000;
        }
        in->current_mA = driven.torque[axis] / 10;
        in->temperature = 250;
        in->flags = INPUT_POSITION | INPUT_CURRENT | INPUT_TEMPERATURE | INPUT_ANSWERED;
        inputs->axis[axis] = *in;
    }
    inputs->bus_mV = 24000;
    inputs->estop_open = false;
}
