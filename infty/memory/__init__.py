"""The paper's memory. Start at `longterm`; `basis`, `signal` and `attention` are its equations one by one."""
