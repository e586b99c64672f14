/* The loop that every port runs; one period is one call. */
#include "loop.h"

#include "port.h"

static core the_core;

void loop_start(void) {
    core_identity identity = {.version = {0, 1, 0}};
    const board_table *board = port_init(&identity);
    core_init(&the_core, board, &identity, port_fault_log());
}

void loop_once(void) {
    uint8_t bytes[512];
    core_inputs inputs = {0};
    core_outputs outputs;
    const uint64_t now_us = port_wait();
    size_t length = port_receive(bytes, sizeof(bytes));
    core_receive(&the_core, bytes, length, now_us);
    port_read(&inputs);
    core_tick(&the_core, &inputs, now_us, &outputs);
    port_drive(&outputs);
    const size_t room = port_send_room();
    length = core_transmit(&the_core, bytes, room < sizeof(bytes) ? room : sizeof(bytes));
    port_send(bytes, length);
    if (outputs.feed_watchdog) {
        port_feed();
    }
}
