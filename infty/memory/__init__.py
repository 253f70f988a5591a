"""The paper's memory (sections 3.1 to 3.4).

Start at `longterm`; `basis`, `signal` and `attention` are its equations one by one.
"""
