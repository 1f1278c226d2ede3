"""What `gateway.py` and `soak.py` are made of: peers to start, a rig to load them, figures to read.

    catalog.py   the peers, each in its own words
    install.py   where they come from
    ours.py      Headgate as shipped, and what it says of itself
    process.py   a process on one core: its CPU time, its memory, its end
    rig.py       mock.c and load.c, the two ends of every measurement
    kinds.py     the loads, and one measurement
    outcomes.py  failures held against planted faults
    report.py    medians, ratios, tables, the JSON line

A stand-in: mock.c answers in place of OpenAI or a vLLM; everything else is the real thing.
"""
