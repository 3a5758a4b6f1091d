"""What runs in production: finding kernels, checking them, loading them, calling them.

A process that finds its kernels in a store needs numpy and this package alone; nothing here imports
`einsumc.compiler` before a kernel is missing and has to be compiled.
"""
