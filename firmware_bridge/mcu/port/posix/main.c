/* The firmware as a process of this machine, with the same core as on a board.
 *
 *   edge-wm-firmware --board arm|rover [--listen SOCKET | --pty] [--window FILE [--lockstep]]
 *
 * The line is a Unix socket, a PTY (whose name it prints), or else the rings of the window. The
 * plant is the process that shares the window, or else an ideal one inside. Time is the machine's,
 * or with --lockstep the plant's. It dies with its parent and never asks for real-time priority. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "loop.h"
#include "port.h"
#include "window_port.h"

static window *the_window; /* a file's, or this process' own with the ideal plant */
static bool own_plant = true, lockstep;
static int listener = -1, peer = -1;
static bool peer_is_pty, line_is_window;
static volatile sig_atomic_t stopping;

static void stop(int number) {
    (void)number;
    stopping = 1;
}

static int fail(const char *what, const char *where) {
    fprintf(stderr, "edge-wm-firmware: %s %s: %s\n", what, where, strerror(errno));
    return 1;
}

static uint64_t monotonic_us(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000U + (uint64_t)now.tv_nsec / 1000U;
}

/* ---- the plant: follows the reference without error; without torque it rolls out ------------*/
static void ideal_plant(void) {
    window *w = the_window;
    const int axes = 2;
    for (int axis = 0; axis < axes; axis++) {
        window_axis_in *in = &w->in[axis];
        if (w->torque_enable != 0 && (w->damp & (1U << axis)) == 0) {
            in->position = w->out[axis].reference_position;
            in->velocity = w->out[axis].reference_velocity;
            in->current_mA = w->out[axis].torque / 10;
        } else {
            const int32_t slower = in->velocity > 10000    ? in->velocity - 10000
                                   : in->velocity < -10000 ? in->velocity + 10000 : 0;
            in->velocity = slower;
            in->position = (int32_t)((uint32_t)in->position + (uint32_t)(slower / 1000));
            in->current_mA = 0;
        }
        in->temperature = 250;
        in->flags = INPUT_POSITION | INPUT_CURRENT | INPUT_TEMPERATURE | INPUT_ANSWERED;
    }
    w->bus_mV = 24000;
}

/* ---- the line: bytes between the socket or PTY and the window's rings -------------------------*/
static void hang_up(void) {
    if (!peer_is_pty && peer >= 0) {
        close(peer);
        peer = -1;
    }
}

static void line_in(void) {
    if (peer < 0 && listener >= 0) {
        peer = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    }
    if (peer < 0) {
        return;
    }
    uint8_t bytes[2048];
    const ssize_t length = read(peer, bytes, sizeof(bytes));
    if (length == 0 || (length < 0 && errno != EAGAIN && errno != EIO && errno != EINTR)) {
        hang_up();
        return;
    }
    window_ring *ring = &the_window->to_device;
    for (ssize_t i = 0; i < length; i++) {
        if (ring->written - ring->read < WINDOW_RING) {
            ring->data[ring->written % WINDOW_RING] = bytes[i];
            ring->written++;
        }
    }
}

static void line_out(void) {
    window_ring *ring = &the_window->to_host;
    if (peer < 0) {
        ring->read = ring->written; /* nobody listens, as on a wire */
        return;
    }
    while (ring->read != ring->written) {
        const uint32_t at = ring->read % WINDOW_RING;
        uint32_t length = ring->written - ring->read;
        if (length > WINDOW_RING - at) {
            length = WINDOW_RING - at;
        }
        const ssize_t sent = peer_is_pty ? write(peer, &ring->data[at], length)
                                         : send(peer, &ring->data[at], length, MSG_NOSIGNAL);
        if (sent <= 0) {
            if (errno != EAGAIN && errno != EINTR) {
                hang_up();
            }
            ring->read = ring->written; /* a wire does not wait */
            return;
        }
        ring->read += (uint32_t)sent;
    }
}

/* ---- time -------------------------------------------------------------------------------------*/
/* The deadline is absolute, and a late one is not made up for by a burst. Bytes are heard and
 * answered at once. */
static void wait_until(uint64_t deadline_us) {
    uint64_t now_us;
    while ((now_us = monotonic_us()) < deadline_us && !stopping) {
        const uint64_t left_us = deadline_us - now_us;
        const struct timespec left = {0, (long)left_us * 1000};
        struct pollfd line = {.fd = peer >= 0 ? peer : listener, .events = POLLIN};
        if (!line_is_window && ppoll(&line, 1, &left, NULL) > 0) {
            line_in();
            loop_link(monotonic_us());
            line_out();
        } else if (line_is_window) {
            (void)nanosleep(&left, NULL);
        }
    }
}

uint64_t port_wait(void) {
    static uint64_t due_us;
    if (lockstep) {
        uint32_t idle = 0;
        volatile window *w = the_window;
        while (w->tick == w->tick_done && !stopping) {
            /* The plant answers within microseconds, or it is away for long. */
            if (++idle > 600) {
                const struct timespec nap = {0, 50000};
                nanosleep(&nap, NULL);
            } else if (idle > 200) {
                sched_yield();
            }
        }
        __atomic_thread_fence(__ATOMIC_SEQ_CST);
        if (!line_is_window) {
            line_in();
        }
        return (uint64_t)w->tick * 1000U;
    }
    const uint64_t now_us = monotonic_us();
    due_us = due_us == 0 || now_us > due_us + 20000 ? now_us + 1000 : due_us + 1000;
    wait_until(due_us);
    if (!line_is_window) {
        line_in();
    }
    return monotonic_us();
}

void port_feed(void) {} /* no watchdog: a process that hangs is its parent's affair */

/* ---- start ------------------------------------------------------------------------------------*/
static int listen_at(const char *path) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof(address.sun_path)) {
        errno = ENAMETOOLONG;
        return fail("cannot listen at", path);
    }
    strcpy(address.sun_path, path);
    unlink(path);
    listener = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (listener < 0 || bind(listener, (struct sockaddr *)&address, sizeof(address)) < 0 ||
        listen(listener, 1) < 0) {
        return fail("cannot listen at", path);
    }
    return 0;
}

static int open_pty(void) {
    struct termios raw;
    peer = posix_openpt(O_RDWR | O_NOCTTY | O_NONBLOCK);
    if (peer < 0 || grantpt(peer) < 0 || unlockpt(peer) < 0 || tcgetattr(peer, &raw) < 0) {
        return fail("cannot open", "a PTY");
    }
    cfmakeraw(&raw);
    tcsetattr(peer, TCSANOW, &raw);
    peer_is_pty = true;
    printf("%s\n", ptsname(peer));
    fflush(stdout);
    /* Hold the other end open, so that a host that leaves does not hang it up. */
    return open(ptsname(peer), O_RDWR | O_NOCTTY) < 0 ? fail("cannot open", ptsname(peer)) : 0;
}

static int map_window(const char *path) {
    const int file = open(path, O_RDWR | O_CLOEXEC);
    struct stat about;
    if (file < 0 || fstat(file, &about) < 0) {
        return fail("cannot open window", path);
    }
    if (about.st_size < WINDOW_BYTES) {
        fprintf(stderr, "edge-wm-firmware: window %s must have %d bytes, has %ld; make it anew\n",
                path, WINDOW_BYTES, (long)about.st_size);
        return 1;
    }
    the_window = mmap(NULL, WINDOW_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    own_plant = false;
    return the_window == MAP_FAILED ? fail("cannot map window", path) : 0;
}

static int usage(void) {
    fprintf(stderr, "usage: edge-wm-firmware --board arm|rover "
                    "[--listen SOCKET | --pty] [--window FILE [--lockstep]]\n");
    return 2;
}

int main(int argc, char **argv) {
    static window own;
    const char *board = "arm", *socket_path = NULL, *window_path = NULL;
    bool pty = false;
    for (int i = 1; i < argc; i++) {
        const bool more = i + 1 < argc;
        if (strcmp(argv[i], "--board") == 0 && more) {
            board = argv[++i];
        } else if (strcmp(argv[i], "--listen") == 0 && more) {
            socket_path = argv[++i];
        } else if (strcmp(argv[i], "--window") == 0 && more) {
            window_path = argv[++i];
        } else if (strcmp(argv[i], "--pty") == 0) {
            pty = true;
        } else if (strcmp(argv[i], "--lockstep") == 0) {
            lockstep = true;
        } else {
            return usage();
        }
    }
    const bool rover = strcmp(board, "rover") == 0;
    if ((!rover && strcmp(board, "arm") != 0) ||
        (socket_path != NULL && pty) || (socket_path == NULL && !pty && window_path == NULL) ||
        (lockstep && window_path == NULL)) {
        return usage();
    }
    line_is_window = socket_path == NULL && !pty;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    signal(SIGTERM, stop);
    signal(SIGINT, stop);
    the_window = &own;
    if ((window_path != NULL && map_window(window_path) != 0) ||
        (socket_path != NULL && listen_at(socket_path) != 0) || (pty && open_pty() != 0)) {
        return 1;
    }
    the_window->board = rover ? WINDOW_BOARD_ROVER : WINDOW_BOARD_ARM;
    window_use(the_window, 1); /* an e-stop input */
    loop_start();
    while (!stopping) {
        if (own_plant) {
            ideal_plant();
        }
        loop_once();
        if (!line_is_window) {
            line_out();
        }
        if (!own_plant) {
            __atomic_thread_fence(__ATOMIC_SEQ_CST);
            the_window->tick_done = the_window->tick;
        }
    }
    if (socket_path != NULL) {
        unlink(socket_path);
    }
    return 0;
}
