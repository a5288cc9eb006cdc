"""The convolution and its gradients, from six nested loops to Winograd; all implementations agree."""
