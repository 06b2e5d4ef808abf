"""Training: state, step, loop, optimiser, sharding, checkpoints, logs. Networks and tasks are arguments here."""
