"""The zoo: public architectures with random weights, each in every form that can be made, and what inference says."""
