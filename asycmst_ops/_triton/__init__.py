"""Triton kernels for CUDA tensors; imported by the dispatcher at the first CUDA call only."""
