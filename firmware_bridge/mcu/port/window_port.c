#include "window_port.h"

#include <string.h>

#include "edge_wire/Identity_1_0.h"
#include "image.h"
#include "port.h"

static volatile window *the_window;
static uint8_t the_capabilities;
static const uint8_t sources_sha256[32] = IMAGE_SHA256;
static const uint8_t *the_sha256 = sources_sha256;
static const uint8_t *the_serial = (const uint8_t *)"window000001";

/* The other side of the window is another processor or process: what is written must be there
 * before the counter that says so. */
#define FENCE() __atomic_thread_fence(__ATOMIC_SEQ_CST)

survivor *window_survivor(volatile window *w) {
    return (survivor *)(uintptr_t)&w->no_init[0];
}

void window_use(volatile window *w, uint8_t capabilities) {
    the_window = w;
    the_capabilities = capabilities;
}

void window_identify(const uint8_t *image_sha256, const uint8_t *serial) {
    the_sha256 = image_sha256;
    the_serial = serial;
}

static const board_table *board_of(const volatile window *w) {
    static board_table servos;
    if (w->board == WINDOW_BOARD_SERVOS) {
        servos = board_servos;
        servos.axes = w->servos >= 1 && w->servos <= AXES_MAX ? w->servos : AXES_MAX;
        return &servos;
    }
    return w->board == WINDOW_BOARD_ROVER ? &board_rover : &board_arm;
}

const board_table *port_init(core_identity *identity) {
    volatile window *w = the_window;
    w->torque_enable = 0;
    survivor *kept = window_survivor(w);
    identity->reset_cause =
        kept->cause >= 1 && kept->cause <= 7 ? (uint8_t)kept->cause : 1U; /* RESET_POWER_ON */
    /* Taken: the next reset that nobody announces is a power-on again. */
    kept->cause = 0;
    identity->capabilities = the_capabilities;
    memcpy(identity->image_sha256, the_sha256, sizeof(identity->image_sha256));
    memcpy(identity->serial, the_serial, sizeof(identity->serial));
    w->reset_cause = identity->reset_cause;
    w->layout = sizeof(window);
    w->version = WINDOW_VERSION;
    w->boots = w->boots + 1U;
    FENCE();
    w->magic = WINDOW_MAGIC;
    return board_of(w);
}

fault_log *port_fault_log(void) {
    return &window_survivor(the_window)->log;
}

size_t port_receive(uint8_t *bytes, size_t room) {
    volatile window_ring *ring = &the_window->to_device;
    size_t length = 0;
    FENCE();
    const uint32_t written = ring->written;
    while (length < room && ring->read != written) {
        bytes[length] = ring->data[ring->read % WINDOW_RING];
        ring->read = ring->read + 1U;
        length++;
    }
    return length;
}

size_t port_send_room(void) {
    const volatile window_ring *ring = &the_window->to_host;
    return WINDOW_RING - (size_t)(uint32_t)(ring->written - ring->read);
}

void port_send(const uint8_t *bytes, size_t length) {
    volatile window_ring *ring = &the_window->to_host;
    uint32_t written = ring->written;
    for (size_t i = 0; i < length; i++) {
        ring->data[written % WINDOW_RING] = bytes[i];
        written++;
    }
    FENCE();
    ring->written = written;
}

void port_read(core_inputs *inputs) {
    const volatile window *w = the_window;
    for (int axis = 0; axis < AXES_MAX; axis++) {
        const volatile window_axis_in *in = &w->in[axis];
        inputs->axis[axis] = (axis_input){in->position, in->velocity, in->current_mA,
                                          in->temperature, in->flags};
    }
    inputs->bus_mV = w->bus_mV;
    inputs->estop_open = w->estop_open != 0;
}

void port_drive(const core_outputs *outputs) {
    volatile window *w = the_window;
    for (int axis = 0; axis < AXES_MAX; axis++) {
        w->out[axis].torque = outputs->torque[axis];
        w->out[axis].reference_position = outputs->reference_position[axis];
        w->out[axis].reference_velocity = outputs->reference_velocity[axis];
    }
    w->torque_enable = outputs->torque_enable;
    w->reason = outputs->reason;
    w->mode = outputs->mode;
    w->fault_axis = outputs->fault_axis;
    w->damp = outputs->damp;
    w->braking = outputs->braking;
}
