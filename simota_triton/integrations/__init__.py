"""Drop-ins for trainers, one module for each package; README.md beside this file lists them.

Each imports its package, so import only the one that you train with.
``mmdet`` and ``mmyolo`` register assigners under the names of those they replace. The others replace
functions of their package with ``patch()`` and put them back with ``unpatch()``; ``is_patched()`` says
whether they are in place, ``calls()`` how often each was called. ``patch()`` logs one line, and reaches the
Python processes that are started after it (:mod:`.children`).
"""
