"""The bench's side of the admin interface: adapters and keys made for a run, churn, and what is scraped meanwhile."""
