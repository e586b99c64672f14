"""The host's half of the link to a microcontroller; `mcu/` has the other half."""
