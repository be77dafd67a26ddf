"""The operators' interface, `/admin/v1`. The command line and the page use nothing else."""
