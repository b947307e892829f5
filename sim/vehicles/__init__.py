"""Batched rigid-body vehicles as Warp kernels over torch tensors, on the CPU and on the GPU."""
