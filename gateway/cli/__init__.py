"""`headgate …`: every command is thin; what it does is in the module that it names.

Exit codes: 0 done; 1 a result that says no (a gate that refuses, say); 2 wrong use or configuration.
"""
