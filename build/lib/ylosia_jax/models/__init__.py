"""Networks: image in, named arrays out; no ground truth, no losses."""
