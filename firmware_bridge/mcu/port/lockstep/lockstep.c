/* The firmware as a shared library: a test turns its milliseconds itself, through ctypes. The
 * window is the caller's memory, so that the bytes and readings are those of every other port. */
#include "loop.h"
#include "port.h"
#include "window_port.h"

static volatile window *the_window;
static uint32_t the_feeds;
static uint64_t the_now_us;

/* Start again after a reset by `cause` (Identity's, 0: power on), as a board of these
 * capabilities. */
void lockstep_start_after(window *w, uint32_t cause, uint8_t capabilities) {
    the_window = w;
    the_feeds = 0;
    window_survivor(w)->cause = cause;
    window_use(w, capabilities);
    loop_start();
}

/* Power on. */
void lockstep_start(window *w) {
    lockstep_start_after(w, 0, 1); /* an e-stop input */
}

/* One millisecond: window.tick is already counted up. */
void lockstep_tick(void) {
    the_now_us = (uint64_t)the_window->tick * 1000U;
    loop_once();
    the_window->tick_done = the_window->tick;
}

/* For a plant in real time, whose periods are longer than a millisecond: all that is due at
 * `now_us`, and, in between, what the line brought. Neither may go back in time. */
void lockstep_work(uint64_t now_us) {
    the_now_us = now_us;
    loop_once();
}

void lockstep_link(uint64_t now_us) {
    loop_link(now_us);
}

/* The same for a plant that does not change in between: `count` milliseconds. */
void lockstep_run(uint32_t count) {
    for (uint32_t i = 0; i < count; i++) {
        the_window->tick = the_window->tick + 1U;
        lockstep_tick();
    }
}

uint32_t lockstep_feeds(void) {
    return the_feeds;
}

uint64_t port_wait(void) {
    return the_now_us;
}

void port_feed(void) {
    the_feeds++;
}
