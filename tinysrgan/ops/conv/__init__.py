"""The convolution and its gradients: one formula, from six loops to Winograd, all with the same result."""
