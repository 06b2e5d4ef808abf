"""Tasks: targets, loss and decode for one kind of output. They meet networks in typed outputs only."""
