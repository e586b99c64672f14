"""The host's side of the link to a microcontroller, and in `mcu/` the firmware in C.

    messages   what is said (generated from the schema in mcu/protocol)
    wire       how it travels: frames, COBS, CRC-32C
    transport  what carries it: serial port, PTY, socket
    clock      the device's clock as the host sees it
    session    HELLO -> CLOCK -> LIMITS -> ARM -> COMMAND stream
    link       all of it behind `edge_wm.device.Link`
    emulated   the firmware itself as a process of this machine; proxy: a link that damages
    lockstep   the firmware one millisecond at a time, on a window that it shares with a plant
    looped     a simulated robot whose motors are the firmware's
    flashing   new firmware, over the same wire
    hil        the numbered suites that a board has to pass

The invariant: a setpoint that cannot be said exactly is not sent, and nothing here arms a device
unless a person or the runtime asked for it since the last time it was disarmed.
"""
