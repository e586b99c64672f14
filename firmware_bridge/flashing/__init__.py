"""New firmware for boards with edge-wm's bootloader, over the link's own wire.

    keys      whose images a technician may install
    image     a signed image: what it says of itself, and whether it may go to this board
    smp       the bootloader's protocol by smpclient, on a wire that loses and damages
    boards    who is there: HELLO, or the bootloader alone
    install   the sequence: look, check, disarm, upload, trial, check-up, confirm or take back
    blank     the first installation, through the board's own route
    signing   build and sign, by imgtool

The invariant: nothing is written to a board before the image has passed every check that can be
made here, and nothing is confirmed that has not run, answered and measured first.
"""
