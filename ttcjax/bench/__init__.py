"""Benchmarks of the engine, alone and beside other software on the same weights; `ttcjax bench --help`.

Each side runs in a process of its own that is told what to do line by line, so that peak memory is its own,
loading and compiling stand apart, and measured runs alternate between the sides.
"""
