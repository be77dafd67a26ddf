"""Who may go to the engines now: limits and the fair queue."""
