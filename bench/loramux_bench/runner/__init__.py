"""Locust at work: users, their schedule, and what they record. The only room that imports gevent and Locust."""
