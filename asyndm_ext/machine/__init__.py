"""What the computer needs and no formula does: random numbers, copies to the device, worker processes."""
