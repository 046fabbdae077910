"""The zoo: inference on public architectures, in every form they can be saved in."""
