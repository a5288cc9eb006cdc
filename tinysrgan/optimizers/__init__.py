"""The optimizers: Adam and Muon."""
