"""Foreign weights: files of other frameworks, and the names that their tensors have there."""
