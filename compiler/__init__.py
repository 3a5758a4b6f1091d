"""From an einsum to machine code: subscripts, program, steps, loop nests, passes, source, build.

Every stage is one file and each takes what the one before it returns. Nothing here imports
`einsumc.runtime`: the compiler knows nothing of stores, threads or the environment.
"""
