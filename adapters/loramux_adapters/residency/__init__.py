"""What each replica holds, and how it comes to hold it: the parts of `manager.AdapterManager`."""
