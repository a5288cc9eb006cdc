"""The convolution and its gradients, from four nested loops to Winograd; all implementations agree."""
