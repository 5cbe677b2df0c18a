"""The kernels as Triton compiles them for a GPU, executed on the CPU with every access checked."""
