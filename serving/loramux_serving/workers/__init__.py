"""One gateway process for each core: workers carry bytes, the control process decides. A worker knows nothing that
could be out of date: it asks for each request, over a channel."""
