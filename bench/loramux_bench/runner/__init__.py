"""Locust at work: users, their schedule, and what they record. Only this room and `apis` import gevent."""
