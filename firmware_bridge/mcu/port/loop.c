/* The loop that every port runs; one period is one call. */
#include "loop.h"

#include "port.h"

static core the_core;

void loop_start(void) {
    core_identity identity = {.version = {0, 1, 0}};
    const board_table *board = port_init(&identity);
    core_init(&the_core, board, &identity, port_fault_log());
}

static void hear(uint64_t now_us) {
    uint8_t bytes[512];
    const size_t length = port_receive(bytes, sizeof(bytes));
    core_receive(&the_core, bytes, length, now_us);
}

static void answer(void) {
    uint8_t bytes[512];
    const size_t room = port_send_room();
    const size_t length =
        core_transmit(&the_core, bytes, room < sizeof(bytes) ? room : sizeof(bytes));
    port_send(bytes, length);
}

void loop_link(uint64_t now_us) {
    hear(now_us);
    answer();
}

void loop_once(void) {
    core_inputs inputs = {0};
    core_outputs outputs;
    const uint64_t now_us = port_wait();
    hear(now_us);
    port_read(&inputs);
    core_tick(&the_core, &inputs, now_us, &outputs);
    port_drive(&outputs);
    answer();
    if (outputs.feed_watchdog) {
        port_feed();
    }
}
