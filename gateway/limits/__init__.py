"""Limits on requests and tokens a minute and on concurrent requests, by key, team and route.

window      what the last minute held, in this process
limiter     which limits cover a request; takes from all of them or from none
shared      the same counters in Redis, for several processes
redis       the little that we speak of Redis's protocol
"""
