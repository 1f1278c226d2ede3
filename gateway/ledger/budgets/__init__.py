"""Budgets: what may be spent, by whom and when; and the slices of it that each process holds against.

    budget    a cap for all requests of a scope in a period            budget.py
    window    one period of a budget, as the database counts it        store.py
    lease     a process's slice of a window's free money               store.py, leases.py
    hold      what a request may cost, set aside until it has settled  leases.py

`spent + leased <= cap` holds in the database in every committed state, and a process never holds more
than it has leased, so `spent + held <= cap` holds over all processes at every instant. What an entry cost
moves from `leased` to `spent` in the transaction that inserts its row, so that each is counted exactly once.
"""
