"""`make demo`: the whole loop on real parts, told on one screen.

__main__    options from the environment, signals, the exit status
story       the acts, in order
swap        the act that fine-tunes and swaps under live traffic
stage       what the acts play on
checks      what has to hold at the end
parts       starts vLLM, the rented model and the gateway, and stops them
config      writes headgate.yaml and policy.yaml as a user would
rented      the real API, or the stand-in that says that it is one
rows        the curated rows: what is trained on and what is held out
client      one request with the OpenAI SDK, and what the x-headgate-* headers say of it
tour        the requests that show what the policy does
traffic     held-out rows as traffic, and live traffic under way while an adapter is swapped in
children    processes that never outlive the demo
screen      what is said, and what is being waited for
tables      its tables
"""
